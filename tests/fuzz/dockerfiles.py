"""What a build is told by strangers: Dockerfiles, ignore files, and what COPY and variables make of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from agent.build import config, contexts, dockerfile, ignore, instructions, plan, selection
from agent.build.words import Expansion, WordError
from agent.errors import AgentError
from tests.fuzz import mutate
from tests.fuzz.area import Area, Run

FILE = """# syntax=docker/dockerfile:1
# escape=\\
ARG TAG=1 BASE
FROM --platform=$BUILDPLATFORM busybox:${TAG:-latest} AS base
ENV A="b c" D=e\\ f
LABEL "x y"="z" v=${A%.*}
RUN --mount=type=cache,id=c,target=/c,sharing=locked,mode=0700 --mount=type=bind,from=base,source=/a,target=/b,rw \\
  --mount=type=secret,id=s,required --network=none --security=sandbox echo "$A" \\
  # between
  && true
RUN <<EOF cat && cat <<-'E2'
one $A
EOF
\ttwo
\tE2
COPY --from=base --chown=a:b --chmod=u=rwX --link --exclude=*.md --parents ./x/./y *.txt /z/
ADD --checksum=sha256:00 --keep-git-dir=true https://example.com/a.git#v1:sub "https://example.com/f" /g/
ONBUILD COPY . /app
HEALTHCHECK --interval=1m30s --retries=3 CMD ["x", "y"]
FROM base
USER app:${GROUP:?none}
WORKDIR a/$A
EXPOSE 80 443/udp 8000-8010
VOLUME ["/a", "/b"]
STOPSIGNAL SIGQUIT
SHELL ["/bin/sh", "-c"]
ENTRYPOINT exec x
CMD ["y"]
"""
IGNORED = "# x\n*.md\n!README.md\n**/node_modules\na/**/b\n[a-c]?\n\\*x\n/root\n./d/../e\n"
WORD = "${A:-$B} \"x $C\" 'y' ${A##*/} ${A//b/c} \\$D ${E:-no} ${A%%?*}"
ADDRESS = "https://a.example/x/y.git?ref=v1&subdir=z#main:sub/dir"
LISTING = selection.Listing(
    {
        "a.txt": selection.Entry("f", 0o644, 0, 0, 1, "0" * 64),
        "x": selection.Entry("d", 0o755, 0, 0, 0),
        "x/y": selection.Entry("l", 0o777, 0, 0, 0, "../a.txt"),
        "x/loop": selection.Entry("l", 0o777, 0, 0, 0, "loop"),
        "README.md": selection.Entry("f", 0o600, 0, 0, 1, "1" * 64),
    }
)


def _spoiled(rng: random.Random, good: str) -> bytes:
    """*good* with bytes changed, lines exchanged, or words of harm between."""
    data = good.encode()
    if rng.random() < 0.4:
        lines = data.split(b"\n")
        rng.shuffle(lines)
        data = b"\n".join(lines)
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(data) + 1)
        data = data[:at] + rng.choice(mutate.TEXTS).encode("utf-8", "surrogatepass") + data[at:]
    return mutate.some(rng, data)


def _file(rng: random.Random) -> None:
    file = dockerfile.read(_spoiled(rng, FILE))
    platforms = plan.platform_arguments("linux/arm64/v8", "linux/amd64")
    made = plan.make(file, arguments={"TAG": rng.choice(mutate.TEXTS)}, platforms=platforms)
    for stage in made.stages:
        document = config.empty("amd64")
        for step in stage.steps:
            expand = Expansion(config.environment(document), file.escape)
            if change := config.CHANGES.get(type(step)):
                document = change(document, step, expand.word)
            elif isinstance(step, instructions.Expose):
                document = config.expose(document, expand.words(step.ports))
            elif isinstance(step, instructions.Copy):
                picks = selection.choose(LISTING, step.sources, "/z/", parents=step.parents, excludes=step.excludes)
                selection.digest(LISTING, picks, owners=True)


def _ignored(rng: random.Random) -> None:
    rules = ignore.Rules(ignore.read(_spoiled(rng, IGNORED).decode(errors="replace")))
    for path in ("a.md", "README.md", "a/x/b", rng.choice(mutate.TEXTS), "a/" * rng.randrange(50) + "b"):
        rules.ignores(path)


def _word(rng: random.Random) -> None:
    text = _spoiled(rng, WORD).decode(errors="replace")
    expand = Expansion({"A": rng.choice(mutate.TEXTS) * rng.randrange(40), "B": "b", "C": "$A"})
    expand.word(text)
    expand.words(text)


def _address(rng: random.Random) -> None:
    contexts.repository(_spoiled(rng, ADDRESS).decode(errors="replace"))


KINDS: tuple[Callable[[random.Random], None], ...] = (_file, _file, _file, _file, _ignored, _ignored, _word, _address)


class Dockerfiles(Area):
    name = "dockerfiles"
    share = 0.25

    def run(self, inputs: Iterable[int], run: Run) -> None:
        for index in inputs:
            rng = run.rng(index)
            run.judge(index, lambda rng=rng: rng.choice(KINDS)(rng), (AgentError, WordError))  # type: ignore[misc]

    def tidy(self) -> None:
        """Nothing is made."""
