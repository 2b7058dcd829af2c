"""Images that docker-py builds: every parameter of build, what the stream says, and what is refused."""

from __future__ import annotations

import gzip
import io
import tempfile
from pathlib import Path
from typing import Any

from docker.errors import APIError, BuildError, DockerException

from tests.beside.look import IMAGE, Look, plain, tar


def _context(**files: str) -> bytes:
    return tar({name.replace("__", "/"): text.encode() for name, text in files.items()})


def _stream(look: Look, label: str, text: str, **how: Any) -> list[dict[str, Any]]:
    """What a build says, line by line; what it made goes in the end."""
    how.setdefault("tag", f"beside/{label.replace(' ', '-')}:one")
    if "fileobj" not in how and "path" not in how:
        how |= {"fileobj": io.BytesIO(_context(Dockerfile=text, own__file="own\n")), "custom_context": True}
    try:
        lines = list(look.c.build(decode=True, **{"rm": True, **how}))
    except (APIError, DockerException, TypeError) as error:
        look.see(f"{label}: refused", getattr(getattr(error, "response", None), "status_code", type(error).__name__))
        look.words[f"{label}: refused"] = plain(str(getattr(error, "explanation", error)))
        return []
    look.later(look.c.remove_image, how["tag"], force=True)
    look.see(f"{label}: kinds", sorted({key for line in lines for key in line}))
    error = next((line["errorDetail"] for line in lines if "errorDetail" in line), None)
    look.see(f"{label}: failed", error and sorted(error))
    if error:
        look.words[f"{label}: failed"] = plain(error["message"])
    return lines


def _said(lines: list[dict[str, Any]]) -> list[str]:
    return [part for line in lines for part in line.get("stream", "").split("\n") if part and not part.startswith(" --->")]


def _config(look: Look, label: str) -> dict[str, Any]:
    found: dict[str, Any] = look.c.inspect_image(f"beside/{label.replace(' ', '-')}:one")
    return found


def with_each_parameter(look: Look) -> None:
    _accepted(look)
    _refused(look)


def _accepted(look: Look) -> None:
    base = f"FROM {IMAGE}\n"
    look.see("plain: said", _said(_stream(look, "plain", f"{base}RUN echo said\nLABEL a=b\n"))[:-2])
    _stream(look, "arguments", f"{base}ARG A=1\nARG B\nLABEL a=$A b=$B\n", buildargs={"A": "x", "B": "y"})
    look.see("arguments", _config(look, "arguments")["Config"]["Labels"])
    lines = _stream(look, "argument of none", f"{base}LABEL a=b\n", buildargs={"NONE": "x"})
    look.see("argument of none", [s for s in _said(lines) if "Warning" in s])
    _stream(look, "labels", f"{base}LABEL a=b c=d\n", labels={"a": "x", "e": "f"})
    look.see("labels", _config(look, "labels")["Config"]["Labels"])
    _stream(look, "target", f"FROM {IMAGE} AS first\nLABEL s=1\nFROM first AS second\nLABEL s=2\n", target="first")
    look.see("target", _config(look, "target")["Config"]["Labels"])
    _stream(look, "no target", f"FROM {IMAGE} AS first\n", target="bogus")
    _stream(
        look,
        "limits",
        f"{base}RUN cat /sys/fs/cgroup/memory/memory.limit_in_bytes > /m\n",
        container_limits={"memory": 1 << 26},
    )
    look.see("limits", look.docker.containers.run("beside/limits:one", ["cat", "/m"], remove=True))
    _stream(
        look, "all limits", base, container_limits={"memory": 1 << 26, "memswap": 1 << 27, "cpushares": 9, "cpusetcpus": "0"}
    )
    _stream(look, "bad limit", base, container_limits={"foo": "bar"})
    lines = _stream(look, "shm", f"{base}RUN df -k /dev/shm | tail -1\n", shmsize="32m")
    look.see("shm", [s.split()[1] for s in _said(lines) if "shm" in s and "RUN" not in s])
    lines = _stream(look, "hosts", f"{base}RUN grep own /etc/hosts\n", extra_hosts={"own.host": "1.2.3.4", "two": "5.6.7.8"})
    look.see("hosts", [s for s in _said(lines) if "1.2.3.4" in s])
    _stream(look, "network none", f"{base}RUN ls /sys/class/net\n", network_mode="none")
    _stream(look, "network host", f"{base}RUN true\n", network_mode="host")
    _stream(look, "network bogus", f"{base}RUN true\n", network_mode="bogus", nocache=True)
    _stream(look, "quiet", f"{base}RUN echo said\n", quiet=True)
    _stream(look, "force remove", f"{base}RUN false\n", forcerm=True)
    _stream(look, "pull", "FROM 127.0.0.1:1/nosuch:x\n", pull=True)
    _stream(look, "isolation", base, isolation="default")
    _stream(look, "bad isolation", base, isolation="bogus")
    _stream(look, "platform", base, platform="linux/amd64")
    _stream(look, "bad platform", base, platform="bogus")
    _stream(look, "other platform", base, platform="windows")
    _stream(look, "squash", base, squash=True)
    _stream(look, "timeout", base, timeout=30)
    _stream(look, "bad tag", base, tag="beside/BAD:one")
    _stream(look, "tag of tags", base, tag="beside/x:y:z")
    _stream(look, "dockerfile", base, dockerfile="nosuch")


def _refused(look: Look) -> None:
    base = f"FROM {IMAGE}\n"
    for label, text in {
        "unknown": f"{base}BOGUS x\n",
        "empty": "",
        "comment": "# nothing\n",
        "no from": "RUN true\n",
        "no image": "FROM nosuch/nosuch:nosuch\n",
        "copy none": f"{base}COPY nosuch /\n",
        "copy from none": f"{base}COPY --from=nosuch /a /\n",
        "run fails": f"{base}RUN echo said; exit 7\n",
        "run none": f"{base}RUN nosuchcommand\n",
        "run exec none": f'{base}RUN ["nosuchcommand"]\n',
        "user none": f"{base}USER nosuch\nRUN true\n",
        "bad expose": f"{base}EXPOSE x\n",
        "bad env": f"{base}ENV\n",
        "bad stop": f"{base}STOPSIGNAL BOGUS\n",
        "bad health": f"{base}HEALTHCHECK --interval=x CMD true\n",
        "bad flag": f"{base}COPY --bogus=x a b\n",
    }.items():
        _stream(look, f"bad {label}", text)


def by_caches(look: Look) -> None:
    base = f"FROM {IMAGE}\n"
    text = f"{base}RUN echo cached\nLABEL a=b\nENV C=d\nRUN echo $C > /c\n"

    def hits(label: str, text: str, **how: Any) -> None:
        lines = _stream(look, label, text, **how)
        look.see(label, sum("Using cache" in line.get("stream", "") for line in lines))

    hits("made", text, nocache=True)
    hits("again", text)
    hits("last step changed", text + "LABEL e=f\n")
    hits("from itself", text, cache_from=["beside/made:one"])
    hits("from none", text, cache_from=["nosuch"])
    hits("other", f"{base}RUN echo other\nLABEL a=b\n", nocache=True)
    hits("from another", text, cache_from=["beside/other:one"])
    hits("from both", text, cache_from=["beside/other:one", "beside/made:one"])
    hits("argument", f"{base}ARG A\nRUN echo argument $A\n", buildargs={"A": "1"}, nocache=True)
    hits("argument again", f"{base}ARG A\nRUN echo argument $A\n", buildargs={"A": "1"})
    hits("argument changed", f"{base}ARG A\nRUN echo argument $A\n", buildargs={"A": "2"})


def of_each_kind_of_context(look: Look) -> None:
    text = f"FROM {IMAGE}\nCOPY . /here\n"
    made: tuple[tuple[str, bytes, dict[str, str]], ...] = (
        ("tar", _context(Dockerfile=text, a="1", d__b="2", **{".dockerignore": "d\n"}), {}),
        ("gzip", gzip.compress(_context(Dockerfile=text, a="1")), {"encoding": "gzip"}),
        ("other name", _context(other=text, a="1"), {"dockerfile": "other"}),
        ("below", _context(deep__other=text, a="1"), {"dockerfile": "deep/other"}),
    )
    for label, data, how in made:
        _stream(look, label, "", fileobj=io.BytesIO(data), custom_context=True, **how)
        try:
            names = look.docker.containers.run(f"beside/{label.replace(' ', '-')}:one", ["find", "/here"], remove=True)
        except DockerException as error:
            names = type(error).__name__.encode()
        look.see(f"{label}: files", sorted(names.decode().split()))
    _stream(look, "no context", "", fileobj=io.BytesIO(f"FROM {IMAGE}\nLABEL a=b\n".encode()))
    _stream(look, "no tar", "", fileobj=io.BytesIO(b"nonsense" * 200), custom_context=True)
    _stream(look, "nothing", "", fileobj=io.BytesIO(b""), custom_context=True)
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        for name, content in {"Dockerfile": text, "a": "1", "not": "2", ".dockerignore": "not\n*.x\n!kept.x\n"}.items():
            (folder / name).write_text(content)
        (folder / "kept.x").write_text("")
        (folder / "lost.x").write_text("")
        (folder / "link").symlink_to("a")
        _stream(look, "folder", "", path=path)
        names = look.docker.containers.run("beside/folder:one", ["sh", "-c", "cd /here; ls -A; readlink link"], remove=True)
        look.see("folder: files", names.decode().split())
        outside = folder.parent / f"{folder.name}.dockerfile"
        outside.write_text(f"FROM {IMAGE}\nLABEL where=outside\n")
        try:
            _stream(look, "outside", "", path=path, dockerfile=str(outside))
        finally:
            outside.unlink()
        look.see("outside", _config(look, "outside")["Config"]["Labels"])
        _stream(look, "absolute", "", path=path, dockerfile=str(folder / "Dockerfile"))
        image, log = look.docker.images.build(path=path, tag="beside/model:one", rm=True)
        look.later(look.c.remove_image, "beside/model:one", force=True)
        look.see("model", [image.tags, "Successfully built" in "".join(line.get("stream", "") for line in log)])
    look.fails("model fails", look.docker.images.build, fileobj=io.BytesIO(f"FROM {IMAGE}\nRUN false\n".encode()))
    try:
        look.docker.images.build(fileobj=io.BytesIO(f"FROM {IMAGE}\nRUN exit 3\n".encode()))
    except BuildError as error:
        look.see("build error", [str(error), "RUN exit 3" in str(list(error.build_log))])
    _stream(look, "address", "", path="http://127.0.0.1:1/Dockerfile")
    look.fails("nowhere", look.c.build)


ALL = (with_each_parameter, by_caches, of_each_kind_of_context)
