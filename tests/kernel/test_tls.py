"""The client far from its server, over TLS: certificates on both sides, streams that end in one direction alone."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent import cgroups
from agent.paths import locate
from orchestrator import tls
from tests.conftest import Pystack, eventually

SERVER = "10.99.0.254"


Issued = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def issue(folder: Path, name: str, authority: Issued | None, address: str) -> Issued:
    """A certificate in *folder* for *address*; its own authority where none is given."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .issuer_name(authority[0].subject if authority else subject)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(alternative, False)
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), True)
        .sign(authority[1] if authority else key, hashes.SHA256())
    )
    folder.mkdir(exist_ok=True)
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "ca.pem").write_bytes((authority[0] if authority else made).public_bytes(serialization.Encoding.PEM))
    return made, key


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """server, client; stranger, of another authority; elsewhere, a server's for another address."""
    top = tmp_path_factory.mktemp("certificates")
    ours, theirs = issue(top / "ca", "ours", None, "127.0.0.1"), issue(top / "stranger", "theirs", None, "127.0.0.1")
    issue(top / "server", "server", ours, SERVER)
    issue(top / "here", "here", ours, "127.0.0.1")
    issue(top / "client", "client", ours, "192.0.2.1")
    issue(top / "stranger", "stranger", theirs, "192.0.2.1")
    return top


def test_each_direction_ends_by_itself(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers a long text, and after the end of its input says what it was: sizes that no buffer holds."""
    many = os.urandom(1 << 20) * 4

    def answer(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            sender = threading.Thread(target=connection.sendall, args=(many,))
            sender.start()
            heard = hashlib.sha256()
            while data := connection.recv(1 << 16):
                heard.update(data)
            sender.join()
            connection.sendall(heard.digest())

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        monkeypatch.setenv("PYSTACK_CERT_PATH", str(folders / "here"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        listener = tls.TlsListener(f"tcp://127.0.0.1:{port}", tmp_path / "s")
        monkeypatch.setenv("PYSTACK_CERT_PATH", str(folders / "client"))
        try:
            for _ in range(20):  # the end of the input meets the output at another byte each time
                server = threading.Thread(target=answer, args=(listening,))
                server.start()
                connection = tls.dial(f"tcp://127.0.0.1:{port}")
                sent = os.urandom(300_000)

                def send(connection: socket.socket = connection, sent: bytes = sent) -> None:
                    connection.sendall(sent)
                    connection.shutdown(socket.SHUT_WR)

                sender = threading.Thread(target=send)
                sender.start()
                heard = b""
                while data := connection.recv(1 << 16):
                    heard += data
                sender.join()
                server.join()
                connection.close()
                assert len(heard) == len(many) + 32
                assert heard[-32:] == hashlib.sha256(sent).digest()
        finally:
            listener.close()


@pytest.fixture(scope="module")
def far(lab: Pystack, folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on the machine outside, which answers over TLS."""
    root = tmp_path_factory.mktemp("far")
    environment = {**os.environ, "PYSTACK_ROOT": str(root), "PYSTACK_CERT_PATH": str(folders / "server")}
    command = ["nsenter", "-t", lab.pid("outside"), "-n", sys.executable, "-m", "orchestrator", "server"]
    with (root / "said").open("wb") as said:
        server = subprocess.Popen([*command, "--listen", f"tcp://{SERVER}"], env=environment, stderr=said)

    def answers() -> None:
        assert run(lab, folders / "client", "ls").returncode == 0, (root / "said").read_text()

    try:
        eventually(answers, 20)
        path = Path(lab.environment["PYSTACK_ROOT"]) / "busybox.tar"
        assert run(lab, folders / "client", "image", "load", "-i", str(path)).returncode == 0
        yield SERVER
    finally:
        server.terminate()
        server.wait(20)
        subprocess.run(["nsenter", "-t", lab.pid("outside"), "-n", "pkill", "-f", f"netplugins.dataplane {root}"], check=False)
        monkeypatch = pytest.MonkeyPatch()
        monkeypatch.setenv("PYSTACK_ROOT", str(root))
        assert cgroups.remove(locate().cgroup_parent)  # a lab takes its nodes' away itself
        monkeypatch.undo()


def run(lab: Pystack, certificates: Path, *words: str, stdin: str = "", host: str = SERVER) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["nsenter", "-t", lab.pid("n1"), "-n", sys.executable, "-m", "orchestrator", *words],
        capture_output=True,
        text=True,
        env={**lab.environment, "PYSTACK_HOST": f"tcp://{host}", "PYSTACK_CERT_PATH": str(certificates)},
        timeout=90,
        check=False,
        input=stdin,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.kernel
def test_containers_are_run_from_elsewhere(lab: Pystack, far: str, folders: Path) -> None:
    text = "there and back\n" * 30_000
    words = ("container", "run", "-i", "--rm", "--network", "none", "busybox", "sh", "-c", "cat; exit 3")
    done = run(lab, folders / "client", *words, stdin=text)
    assert (done.returncode, done.stdout) == (3, text)


@pytest.mark.kernel
def test_who_has_no_certificate_of_ours_is_not_heard(lab: Pystack, far: str, folders: Path, tmp_path: Path) -> None:
    stranger = run(lab, folders / "stranger", "ls")
    assert stranger.returncode == 1
    assert "its certificate is not accepted: " in stranger.stderr
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_bytes((folders / "stranger" / name).read_bytes())
    (tmp_path / "ca.pem").write_bytes((folders / "client/ca.pem").read_bytes())
    trusting = run(lab, tmp_path, "ls")  # it knows our authority, and ours does not know it
    assert trusting.returncode == 1
    assert "alert" in trusting.stderr or "went away" in trusting.stderr
    nothing = run(lab, tmp_path / "nothing", "ls")
    assert "tcp:// is TLS with certificates on both sides" in nothing.stderr
    closed = run(lab, folders / "client", "ls", host=f"{SERVER}:1")
    assert "Connection refused" in closed.stderr
