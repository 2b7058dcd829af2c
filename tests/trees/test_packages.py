"""What package managers leave in layers: found in the topmost, hidden by whiteouts, bounded, and hostile text is text."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from agent import mounts
from agent.images.sbom import purl, spdx
from agent.images.store import Image
from agent.images.types import Config, RootFs
from agent.trees import process

DPKG = """
Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2.15-2+b7
Description: GNU Bourne Again SHell
 Package: not-this

Package: gone
Status: deinstall ok config-files
Version: 1

Package: libc6
Status: hold ok installed
Architecture: amd64
Version: 2.36-9
"""
APK = """C:Q1abc=
P:musl
V:1.2.4-r2
A:x86_64
L:MIT

P:busybox
V:1.36.1-r5
A:x86_64
L:GPL-2.0-only
"""
OPAQUE = mounts.overlay_attribute("opaque")
BOUNDS = json.dumps({"entries": 10_000, "bytes": 1 << 30, "path_bytes": 4096, "path_depth": 255})


def layer(folder: Path, files: dict[str, str | None]) -> Path:
    """A directory with these files; None is a whiteout."""
    for path, text in files.items():
        goal = folder / path
        goal.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            os.mknod(goal, 0o20600, 0)
        else:
            goal.write_text(text)
    folder.mkdir(exist_ok=True)
    return folder


def search(*layers: Path, bounds: str = BOUNDS) -> process.Reply:
    return asyncio.run(process.asked("packages", (OPAQUE, bounds, *map(str, layers))))


def names(reply: process.Reply) -> list[tuple[str, str, str]]:
    return [(kind, name, version) for kind, name, version, *_ in reply["packages"]]


def test_each_package_manager_is_read(tmp_path: Path) -> None:
    files = {
        "var/lib/dpkg/status": DPKG,
        "var/lib/dpkg/status.d/base": "Package: base-files\nVersion: 12\nArchitecture: amd64\n",
        "lib/apk/db/installed": APK,
        "usr/lib/python3/dist-packages/six-1.16.dist-info/METADATA": "Name: six\nVersion: 1.16\nLicense: MIT\n\nName: no\n",
        "opt/venv/lib/python3.11/site-packages/old.egg-info": "Name: old\nVersion: 2\n",
        "app/node_modules/@types/node/package.json": '{"name": "@types/node", "version": "20.1.0", "license": "MIT"}',
        "app/node_modules/left-pad/package.json": '{"name": "left-pad", "version": "1.3.0"}',
        "app/node_modules/left-pad/test/package.json": '{"name": "no", "version": "0"}',
        "var/lib/rpm/rpmdb.sqlite": "SQLite",
        "etc/METADATA": "Name: no\nVersion: 0\n",
    }
    reply = search(layer(tmp_path / "l", dict(files)))
    assert names(reply) == [
        ("apk", "busybox", "1.36.1-r5"),
        ("apk", "musl", "1.2.4-r2"),
        ("deb", "base-files", "12"),
        ("deb", "bash", "5.2.15-2+b7"),
        ("deb", "libc6", "2.36-9"),
        ("npm", "@types/node", "20.1.0"),
        ("npm", "left-pad", "1.3.0"),
        ("pypi", "old", "2"),
        ("pypi", "six", "1.16"),
    ]
    assert reply["unread"] == ["var/lib/rpm/rpmdb.sqlite"]


@pytest.mark.skipif(os.geteuid() != 0, reason="whiteouts are device nodes")
def test_what_an_upper_layer_deletes_or_replaces_does_not_count(tmp_path: Path) -> None:
    npm = "app/node_modules/{0}/package.json"
    lower = layer(
        tmp_path / "lower",
        {
            "var/lib/dpkg/status": DPKG,
            npm.format("a"): '{"name": "a", "version": "1"}',
            npm.format("b"): '{"name": "b", "version": "1"}',
            "old/node_modules/c/package.json": '{"name": "c", "version": "1"}',
        },
    )
    upper = layer(
        tmp_path / "upper",
        {
            "var/lib/dpkg/status": "Package: bash\nStatus: install ok installed\nVersion: 6\n",
            "app/node_modules/a": None,
            npm.format("b"): '{"name": "b", "version": "2"}',
        },
    )
    (upper / "old").mkdir()
    os.setxattr(upper / "old", OPAQUE, b"y")
    assert names(search(upper, lower)) == [("deb", "bash", "6"), ("npm", "b", "2")]


HOSTILE = {
    "binary": "\x00\xff" * 100,
    "deep": "[" * 100_000,
    "no object": "[]",
    "another type": '{"name": 7, "version": {}}',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_package_is_none(text: str, tmp_path: Path) -> None:
    files = {"node_modules/a/package.json": text, "var/lib/dpkg/status": text, "lib/apk/db/installed": text}
    reply = search(layer(tmp_path / "l", dict(files)))
    assert reply["packages"] == []


def test_bounds_hold_and_orders_to_a_terminal_are_left_out(tmp_path: Path) -> None:
    status = "Package: a\x1b[31m" + "x" * 1000 + "\nStatus: install ok installed\nVersion: 1\n"
    found = search(layer(tmp_path / "l", {"var/lib/dpkg/status": status}))["packages"][0][1]
    assert "\x1b" not in found
    assert len(found) <= 300
    few = json.dumps(json.loads(BOUNDS) | {"entries": 2})
    assert "more files than are allowed" in search(tmp_path / "l", bounds=few)["error"]


def test_a_link_out_of_the_image_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "status").write_text(DPKG)
    (tmp_path / "l/var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "l/var/lib/dpkg/status").symlink_to(tmp_path / "status")
    assert search(tmp_path / "l")["packages"] == []


def test_the_document_is_spdx() -> None:
    image = Image(
        id="sha256:" + "1" * 64,
        digest="sha256:" + "2" * 64,
        names=("docker.io/library/a:1",),
        config=Config(rootfs=RootFs(diff_ids=())),
        layers=(),
        size=1,
        created="2026-01-02T03:04:05.678Z",
    )
    packages = [("deb", "bash", "5.2", "amd64", "", "var/lib/dpkg/status"), ("pypi", "Zope.Interface", "6", "", "MIT", "m")]
    found = spdx(image, packages, ["var/lib/rpm/Packages"])
    assert (found["spdxVersion"], found["dataLicense"], found["creationInfo"]["created"]) == (
        "SPDX-2.3",
        "CC0-1.0",
        "2026-01-02T03:04:05Z",
    )
    ids = [p["SPDXID"] for p in found["packages"]]
    assert len(set(ids)) == 3
    assert {r["relatedSpdxElement"] for r in found["relationships"]} == set(ids)
    locators = [p["externalRefs"][0]["referenceLocator"] for p in found["packages"][1:]]
    assert locators == ["pkg:deb/bash@5.2?arch=amd64", "pkg:pypi/zope-interface@6"]
    assert found["packages"][2]["licenseDeclared"] == "MIT"
    assert "rpm" in found["creationInfo"]["comment"]
    assert found == spdx(image, packages, ["var/lib/rpm/Packages"])


def test_a_purl_has_no_characters_of_its_own_grammar() -> None:
    assert purl("npm", "@types/node", "1", "") == "pkg:npm/%40types/node@1"
    assert purl("deb", "a", "1:2+b?#@", "x&y") == "pkg:deb/a@1%3A2%2Bb%3F%23%40?arch=x%26y"
