"""Layers that try to leave their root, and references."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from agent.errors import BadRequestError
from agent.images.reference import parse
from tests.images import tar_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners of files need root")


def unpack(target: Path, data: bytes, digest: str = "") -> dict[str, object]:
    words = [sys.executable, "-m", "agent.trees.layer", str(target), digest, "", "", "trusted.overlay.opaque", ""]
    done = subprocess.run(words, input=data, capture_output=True, check=False)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def entry(name: str, **fields: object) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        for key, value in fields.items():
            setattr(info, key, value)
        archive.addfile(info, io.BytesIO(b"x" * info.size))
    return out.getvalue()


def test_what_is_good_arrives_whole(tmp_path: Path) -> None:
    data = tar_of({"a": None, "a/f": b"text", "a/l": "f", ".wh.gone": b"", "a/.wh..wh..opq": b""})
    reply = unpack(tmp_path, data)
    assert reply["diff_id"] == "sha256:" + hashlib.sha256(data).hexdigest()
    assert (tmp_path / "a/f").read_bytes() == b"text"
    assert (tmp_path / "a/l").readlink() == Path("f")
    assert (tmp_path / "gone").stat().st_rdev == 0
    assert os.getxattr(tmp_path / "a", "trusted.overlay.opaque") == b"y"


def test_dots_are_refused(tmp_path: Path) -> None:
    assert "leaves its root" in str(unpack(tmp_path, entry("../../evil", size=1))["error"])


def test_a_symlink_leads_nowhere_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    data = tar_of({"link": str(outside)})[:512] + entry("link/evil", size=1)
    unpack(root, data)
    assert list(outside.iterdir()) == []


def test_a_hard_link_reaches_nothing_outside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    reply = unpack(root, entry("h", type=tarfile.LNKTYPE, linkname="/etc/hostname"))
    assert "names a file that is not there" in str(reply["error"])


def test_a_wrong_digest_is_told(tmp_path: Path) -> None:
    reply = unpack(tmp_path, tar_of({"f": b"x"}), "sha256:" + "0" * 64)
    assert "the manifest says sha256:000" in str(reply["error"])


@pytest.mark.parametrize("data", [b"junk" * 500, b"\x1f\x8b" + b"junk" * 500], ids=["no tar", "no gzip"])
def test_rubbish_is_refused(tmp_path: Path, data: bytes) -> None:
    assert "error" in unpack(tmp_path, data)


NAMES = {
    "nginx": "docker.io/library/nginx:latest",
    "a/b:1": "docker.io/a/b:1",
    "localhost:5000/x": "localhost:5000/x:latest",
    "h.example/p/q@sha256:" + "a" * 64: "h.example/p/q@sha256:" + "a" * 64,
}


@pytest.mark.parametrize(("text", "full"), NAMES.items())
def test_names(text: str, full: str) -> None:
    assert parse(text).name == full


@pytest.mark.parametrize("text", ["UPPER", "a b", "x:!", "a@sha256:1", "../x", ""])
def test_wrong_names(text: str) -> None:
    with pytest.raises(BadRequestError):
        parse(text)
