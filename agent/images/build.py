"""Build an image from a context by buildah, and take it into the store.

The context arrives as a tar, is unpacked by a worker into a private folder, and goes away afterwards; buildah keeps its
layer cache between builds in a storage of its own. Images of this node can be named in FROM: those that the Dockerfile
names are handed to buildah first.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from agent import files
from agent.contract.container import BUILD_EXTRAS
from agent.errors import AgentError, BadRequestError, of_worker
from agent.images import archive
from agent.images.reference import parse
from agent.images.store import Image, ImageStore
from agent.trees import process


class BuildOptions(msgspec.Struct, kw_only=True):
    """What to build: *dockerfile* is a path inside the context; *tags* are names for the result. *contexts* are further ones by
    name: `docker-image://NAME`, a URL, or a folder below BUILD_EXTRAS. *ulimits* are NAME=SOFT:HARD, *shm_size* bytes."""

    dockerfile: str = "Dockerfile"
    tags: tuple[str, ...] = ()
    args: dict[str, str] = {}
    target: str = ""
    labels: dict[str, str] = {}
    no_cache: bool = False
    pull: bool = False
    network: str = ""
    platform: str = ""
    shm_size: int = 0
    extra_hosts: tuple[str, ...] = ()
    ulimits: tuple[str, ...] = ()
    contexts: dict[str, str] = {}
    privileged: bool = False


async def build(
    store: ImageStore,
    runtime: str,
    root: Path,
    context: AsyncIterator[bytes],
    options: BuildOptions,
    say: Callable[[str], None],
) -> Image:
    """*runtime* is the program that runs RUN steps. Raises AgentError with buildah's last words where the build fails."""
    program = shutil.which("buildah")
    if program is None:
        raise AgentError("build needs buildah on the node: `apt-get install buildah`")
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix="context-") as name:
        directory, along, iid = (Path(name) / part for part in ("context", "along", "iid"))
        directory.mkdir()
        await _unpack(context, directory, store)
        with contextlib.suppress(FileNotFoundError):
            (directory / BUILD_EXTRAS).rename(along)  # no COPY shall see what only RUN may
        _refuse_links(along)
        dockerfile = files.resolve_in_root(directory, options.dockerfile) if _exists(directory, options.dockerfile) else None
        if dockerfile is None:
            raise BadRequestError(f"the build context has no {options.dockerfile}")
        storage = [
            "--root",
            str(root / "storage"),
            "--runroot",
            str(root / "run"),
            "--storage-driver",
            "overlay",
        ]
        await _provide_bases(store, program, storage, dockerfile, options, root, say)
        arguments = [
            program,
            *storage,
            "build",
            "--isolation",
            "oci",
            "--runtime",
            runtime,
            "--layers",
            "--format",
            "oci",
            "--iidfile",
            str(iid),
            "-f",
            str(dockerfile),
            "--pull=true" if options.pull else "--pull=false",
            "--tls-verify=false",
        ]
        arguments += _further(options, along)
        arguments += ["--no-cache"] if options.no_cache else []
        arguments += ["--target", options.target] if options.target else []
        arguments += [f"--network={options.network}"] if options.network else ["--network=host"]
        for key, value in options.args.items():
            arguments += ["--build-arg", f"{key}={value}"]
        for key, value in options.labels.items():
            arguments += ["--label", f"{key}={value}"]
        await _run([*arguments, str(directory)], say)
        ident = iid.read_text().strip()
        output = Path(name) / "image"
        await _run([program, *storage, "push", "-q", ident, f"oci:{output}:built"], lambda _: None)
        await archive.load(store, output)
        index = msgspec.json.decode((output / "index.json").read_bytes())
        image = store.image(index["manifests"][0]["digest"])
        for tag in options.tags:
            store.tag(parse(tag), image.digest)
        store.names.pop("docker.io/library/loaded:built", None)
        if not options.tags:
            store.keep_untagged(image.digest)
        return store.image(image.digest)


def _refuse_links(along: Path) -> None:
    """buildah would follow them to files of this host. Raises BadRequestError."""
    for path in (along, *along.glob("*"), *(along / "secrets").glob("*")):
        if path.is_symlink():
            raise BadRequestError(f"the build context's {BUILD_EXTRAS}/{path.relative_to(along)} is a symbolic link: refused")


def _further(options: BuildOptions, along: Path) -> list[str]:
    """What buildah is told of a options beside the Dockerfile's own affairs."""
    out = ["--platform", options.platform] if options.platform else []
    out += ["--shm-size", str(options.shm_size)] if options.shm_size else []
    out += ["--cap-add", "all"] if options.privileged else []
    for host in options.extra_hosts:
        out += ["--add-host", host]
    for limit in options.ulimits:
        out += ["--ulimit", limit]
    for name, value in options.contexts.items():
        local = value.startswith(f"{BUILD_EXTRAS}/")
        out += ["--build-context", f"{name}={along / value.removeprefix(f'{BUILD_EXTRAS}/') if local else value}"]
    if (along / "secrets").is_dir():
        for path in sorted((along / "secrets").iterdir()):
            out += ["--secret", f"id={path.name},src={path}"]
    return out


def _exists(directory: Path, name: str) -> bool:
    try:
        return files.resolve_in_root(directory, name).is_file()
    except OSError:
        return False


async def _unpack(context: AsyncIterator[bytes], directory: Path, store: ImageStore) -> None:
    reply = await process.fed("context", (str(directory), store.bounds), context, stall_s=store.limits.stall_s)
    if "error" in reply:
        raise of_worker(reply, BadRequestError, "the build context cannot be unpacked: ")


def bases(dockerfile: str, args: dict[str, str]) -> list[str]:
    """Images that FROM and COPY --from name, build arguments put in; stages of the same file are left out."""
    values = dict(args)
    stages: set[str] = set()
    found: list[str] = []
    for line in re.sub(r"\\\n", " ", dockerfile).splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0].upper() == "ARG" and len(words) > 1:
            key, _, default = words[1].partition("=")
            values.setdefault(key, default.strip("\"'"))
        elif words[0].upper() == "FROM":
            rest = [w for w in words[1:] if not w.startswith("--")]
            name = re.sub(r"\$\{?(\w+)(?::-([^}]*))?\}?", lambda m: values.get(m[1]) or m[2] or "", rest[0])
            if name.lower() not in stages and name != "scratch":
                found.append(name)
            if len(rest) > 2 and rest[1].upper() == "AS":
                stages.add(rest[2].lower())
        elif words[0].upper() == "COPY":
            found += [w[7:] for w in words if w.startswith("--from=") and not w[7:].isdigit() and w[7:].lower() not in stages]
    return list(dict.fromkeys(found))


async def _provide_bases(
    store: ImageStore,
    program: str,
    storage: Sequence[str],
    dockerfile: Path,
    options: BuildOptions,
    root: Path,
    say: Callable[[str], None],
) -> None:
    """Hand this node's images to buildah under the names that the Dockerfile uses."""
    named = [v.removeprefix("docker-image://") for v in options.contexts.values() if v.startswith("docker-image://")]
    for name in dict.fromkeys([*bases(dockerfile.read_text(errors="replace"), options.args), *named]):
        if name in options.contexts:
            continue
        try:
            image = store.find(name)
        except AgentError:
            continue  # buildah pulls it
        known = root / "provided" / image.digest[7:]
        full = parse(name).name
        probe = await asyncio.create_subprocess_exec(
            program,
            *storage,
            "inspect",
            "--type",
            "image",
            full,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        if await probe.wait() == 0 and known.exists() and full in known.read_text().splitlines():
            continue
        with tempfile.NamedTemporaryFile(dir=root, suffix=".tar") as file:
            async for chunk in archive.save(store, [name]):
                file.write(chunk)
            file.flush()
            await _run([program, *storage, "pull", "-q", f"oci-archive:{file.name}"], lambda _: None, tag=full)
        say(f"using {parse(name).familiar} of this node\n")
        known.parent.mkdir(exist_ok=True)
        known.write_text(full + "\n")


async def _run(arguments: Sequence[str], say: Callable[[str], None], tag: str = "") -> None:
    child = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1 << 20,
    )
    assert child.stdout
    last: list[str] = []
    try:
        while raw := await child.stdout.readline():
            text = raw.decode(errors="replace")
            say(text)
            last = [*last[-9:], text.rstrip()]
        code = await child.wait()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if code:
        raise AgentError("build failed: " + "\n".join(last))
    if tag:
        ident = next((line for line in reversed(last) if re.fullmatch(r"[0-9a-f]{64}", line)), "")
        await _run([*arguments[: arguments.index("pull")], "tag", ident, tag], lambda _: None)
