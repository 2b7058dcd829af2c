"""Attacks by stack files and by git repositories."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.escape.ground import Content, Ground, shell, stack_file

# stack files and repositories


def tag(g: Ground) -> str:
    return f"services: !!python/object/apply:os.system ['touch {g.outside}/ran']\n"


def yaml_tag_run(g: Ground) -> None:
    yaml.unsafe_load(tag(g))


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)


def yaml_bomb(g: Ground) -> str:
    service = "services: {a: {image: busybox, labels: {a: *j}}}\n"
    return stack_file(g, f"x-bomb:\n{textwrap.indent(BOMB, '  ')}{service}", "config")


def yaml_bomb_counted(g: Ground) -> None:
    count = dict.fromkeys("a", 9)
    loaded = yaml.safe_load(BOMB)
    for letter, above in zip("bcdefghij", "abcdefghi", strict=True):
        count[letter] = sum(count[above] for _ in loaded[letter])
    if count["j"] > 10**9:
        g.gains.append(f"{count['j']} words of {len(BOMB)} bytes")


def repository(g: Ground, files: Mapping[str, str]) -> Path:
    """A bare repository with one commit; text that begins with -> is a link."""
    copy, bare = g.place / "copy", g.place / "origin.git"
    shell("git", "init", "-q", "-b", "main", "--bare", str(bare))
    shell("git", "init", "-q", "-b", "main", str(copy))
    for name, text in files.items():
        path = copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(text[2:]) if text.startswith("->") else path.write_text(text)
    shell("git", "add", "-A", cwd=copy)
    shell("git", "-c", "user.name=Eve", "-c", "user.email=eve@example.org", "commit", "-q", "-m", "evil", cwd=copy)
    shell("git", "push", "-q", str(bare), "HEAD:main", cwd=copy)
    return bare


def follow(g: Ground, url: str) -> str:
    """What it says to follow that repository; what a container is told by it is looked at."""
    done = g.field.pystack("gitops", "add", url, "--name", g.name, "--interval", "1h", check=False)
    try:
        g.take(done.stdout + done.stderr)
        for row in json.loads(g.field.pystack("ps", "-p", g.name, "--format", "json", check=False).stdout or "[]"):
            inside = g.field.pystack("exec", "-p", g.name, "-T", str(row["service"]), "sh", "-c", "cat /text; env", check=False)
            g.take(inside.stdout)
    finally:
        g.field.pystack("gitops", "rm", g.name, check=False)
        g.field.pystack("down", "-p", g.name, "-v", check=False)
    return done.stdout + done.stderr


SERVICE = "services: {web: {image: busybox, command: [sleep, '1000'], stop_signal: SIGKILL, %s}}\n"
CONFIG = SERVICE % "configs: [text]" + "configs: {text: {file: ./text}}\n"


def repository_link(g: Ground) -> str:
    return follow(g, str(repository(g, {"compose.yml": CONFIG, "text": f"->{g.outside}/file"})))


def repository_link_followed(g: Ground) -> None:
    bare = repository(g, {"text": f"->{g.outside}/file"})
    shell("git", "clone", "-q", str(bare), str(g.place / "clone"))
    g.take((g.place / "clone/text").read_text())


def repository_path(g: Ground) -> str:
    return follow(g, str(repository(g, {"compose.yml": CONFIG.replace("./text", f"{'../' * 30}{str(g.outside)[1:]}/file")})))


def repository_path_followed(g: Ground) -> None:
    bare = repository(g, {"path": f"{'../' * 30}{str(g.outside)[1:]}/file"})
    shell("git", "clone", "-q", str(bare), str(g.place / "clone"))
    g.take((g.place / "clone" / (g.place / "clone/path").read_text()).read_text())


def repository_environment(g: Ground) -> str:
    """`${NAME}` of the server's environment, which has a secret."""
    return follow(g, str(repository(g, {"compose.yml": SERVICE % "environment: ['A=${ESCAPE_SECRET:-none}', ESCAPE_SECRET]"})))


def environment_interpolated(g: Ground) -> None:
    (g.place / "stack.yml").write_text(SERVICE % "environment: ['A=${ESCAPE_SECRET}']")
    lines = shell("env", f"ESCAPE_SECRET={g.field.secret}", *_pystack(), "-f", str(g.place / "stack.yml"), "config")
    g.take(lines.stdout)


def _pystack() -> list[str]:
    import sys

    return [sys.executable, "-m", "orchestrator"]


def repository_program(g: Ground) -> str:
    """An address of git's that names a program to run."""
    return follow(g, f"ext::sh -c touch% {g.outside}/ran")


def repository_program_run(g: Ground) -> None:
    shell("git", "-c", "protocol.ext.allow=always", "clone", "-q", f"ext::sh -c touch% {g.outside}/ran", str(g.place / "clone"))


def repository_option(g: Ground) -> str:
    """An address that is an option of git's."""
    words = ("gitops", "add", "--name", g.name, "--interval", "1h", "--branch", "main", "--")
    done = g.field.pystack(*words, f"--upload-pack=touch {g.outside}/ran;", check=False)
    g.field.pystack("gitops", "rm", g.name, check=False)
    return done.stdout + done.stderr


def repository_option_taken(g: Ground) -> None:
    shell("git", "ls-remote", f"--upload-pack=touch {g.outside}/ran;", str(repository(g, {"a": "b"})))


ROWS = (
    Content(
        "yaml_tag",
        "a tag of YAML that calls a function",
        "tags are not known",
        "yaml.unsafe_load",
        lambda g: stack_file(g, tag(g), "config"),
        yaml_tag_run,
        "stack.yml:1",
    ),
    Content(
        "yaml_bomb",
        "aliases that make 10^9 words of a few bytes",
        "a bound of what aliases make",
        "loaded and counted",
        yaml_bomb,
        yaml_bomb_counted,
    ),
    Content(
        "repository_link",
        "a file of a repository is a link out",
        "read in a jail that holds the commit alone",
        "cloned and opened",
        repository_link,
        repository_link_followed,
        "cannot be read",
    ),
    Content(
        "repository_path",
        "a stack file names ../../…/file",
        "read in a jail that holds the commit alone",
        "cloned and opened",
        repository_path,
        repository_path_followed,
        "cannot be read",
    ),
    Content(
        "repository_environment",
        "a stack file asks for the server's environment",
        "an environment of its own",
        "read by the command line, which has it",
        repository_environment,
        environment_interpolated,
    ),
    Content(
        "repository_program",
        "ext::, an address that names a program",
        "addresses are checked; protocol.allow",
        "protocol.ext.allow=always",
        repository_program,
        repository_program_run,
    ),
    Content(
        "repository_option",
        "an address that is an option of git's",
        "addresses are checked",
        "given to git as it is",
        repository_option,
        repository_option_taken,
    ),
)
