"""What lies between a token and a link: the token's text, the authority, certificates and what they open."""

from __future__ import annotations

import asyncio
import datetime
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from agent.contract.joining import (
    JOIN,
    Invitation,
    JoinAnswer,
    JoinRequest,
    LinkAnswer,
    LinkHello,
    MalformedJoinError,
    load_certificate,
    receive_line,
    send_line,
    token_text,
)
from agent.errors import BadRequestError, ConflictError
from agent.joining import JoinOptions, join
from agent.paths import Paths
from agent.uplink import Credentials, Uplink, UplinkError, ask, certificate_request, dial, is_due, new_key, servers_context
from orchestrator import authority, tls
from orchestrator.errors import PystackError, RefusedError
from orchestrator.transport.node_listener import NodeListener, Peer
from tests.ports import free_port

NOW = datetime.datetime.now(datetime.UTC)
ROOT = authority.make_root("nodes", NOW)
HASH = authority.certificate_key_hash(ROOT)
SECRET = "s" * 22


@asynccontextmanager
async def listening(folder: Path, root: bytes = ROOT) -> AsyncIterator[tuple[NodeListener, str]]:
    listener = NodeListener(f"tcp://127.0.0.1:{free_port()}", "n1", folder)
    await listener.serve(root)
    try:
        yield listener, f"127.0.0.1:{listener.port}"
    finally:
        await listener.close()


def credentials(root: bytes = ROOT, node: str = "0123", now: datetime.datetime = NOW, days: int = 90) -> Credentials:
    key = new_key()
    certificate, _ = authority.certify_node(root, certificate_request(key), node, now, days)
    return Credentials(
        name="n3", key=key, certificate=certificate, authority=authority.root_certificate(root), given=("127.0.0.1:1",)
    )


def paths(folder: Path) -> Paths:
    (folder / "run").mkdir(exist_ok=True)
    return Paths(folder, folder / "run", "t")


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("a", ("a:2377",)),
        ("a:1,[fd00::1],[fd00::1]:9,a:1", ("a:1", "[fd00::1]:2377", "[fd00::1]:9")),
    ],
)
def test_an_invitation_is_a_token_and_servers(text: str, servers: tuple[str, ...]) -> None:
    assert Invitation.parse(f" {token_text(HASH, SECRET)}@{text}\n") == Invitation(HASH, SECRET, servers)


@pytest.mark.parametrize("servers", ["", "a:0", "a:65536", "a b", "fd00::1", "a,", "http://a", "a/../b", "[::1"])
def test_what_is_no_invitation_is_said_so(servers: str) -> None:
    with pytest.raises(MalformedJoinError, match="is not"):
        Invitation.parse(f"{token_text(HASH, SECRET)}@{servers}")
    with pytest.raises(MalformedJoinError, match="TOKEN@SERVER"):
        Invitation.parse(f"pystack_join_{HASH}@a")


def test_a_request_says_nothing_but_its_key(tmp_path: Path) -> None:
    """A certificate has the node's ID, is for clients alone, and is refused for a request that is signed by another."""
    key = new_key()
    certificate, found = authority.certify_node(ROOT, certificate_request(key), "0123", NOW, 90)
    made = x509.load_pem_x509_certificate(certificate.encode())
    assert [a.value for a in made.subject] == ["0123"]
    assert made.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert found == authority.certificate_key_hash(certificate.encode())
    damaged = certificate_request(key).replace("A", "B", 3)
    with pytest.raises(ValueError, match=r"."):
        authority.certify_node(ROOT, damaged, "0123", NOW, 90)


def test_a_certificate_is_exchanged_half_way() -> None:
    known = credentials(days=90)
    half = (NOW - authority.SKEW).timestamp() + (90 * 86_400 + authority.SKEW.total_seconds()) / 2
    assert not is_due(known.certificate, half - 60)
    assert is_due(known.certificate, half + 60)


async def test_another_authority_is_not_told_the_secret(tmp_path: Path) -> None:
    """Nor a name, nor a request: the machine leaves when it has seen the authority."""
    told: list[JoinRequest] = []

    async def enrol(request: JoinRequest, peer: Peer) -> JoinAnswer:
        told.append(request)
        return JoinAnswer(error="no")

    async with listening(tmp_path, authority.make_root("others", NOW)) as (listener, address):
        listener.enrol = enrol
        with pytest.raises(ConflictError, match="somebody stands between; nothing was sent"):
            await join(JoinOptions(join=f"{token_text(HASH, SECRET)}@{address}"), paths(tmp_path), _uplink(tmp_path), "")
    async with listening(tmp_path) as (listener, address):
        listener.enrol = enrol
        with pytest.raises(ConflictError, match="no"):
            await join(JoinOptions(join=f"{token_text(HASH, SECRET)}@{address}"), paths(tmp_path), _uplink(tmp_path), "")
    assert [r.secret for r in told] == [SECRET]


def _uplink(folder: Path) -> Uplink:
    place = paths(folder)
    return Uplink(place.root, place.run, place.docker_socket)


async def test_who_joins_asks_the_server_that_leads(tmp_path: Path) -> None:
    """One that does not names others; what the machine was killed before is asked for with the same key."""
    asked: list[str] = []

    async def enrol(request: JoinRequest, peer: Peer) -> JoinAnswer:
        asked.append(request.request)
        if len(asked) == 1:
            raise RefusedError("not yet")
        return JoinAnswer(name="n3", certificate=authority.certify_node(ROOT, request.request, "0123", NOW, 90)[0])

    async with listening(tmp_path) as (standby, first), listening(tmp_path) as (leader, second):
        standby.servers, leader.enrol = (second,), enrol
        text = f"{token_text(HASH, SECRET)}@{first}"
        uplink = _uplink(tmp_path)
        with pytest.raises(ConflictError, match=f"{first}: this server does not lead.*{second}: not yet"):
            await join(JoinOptions(join=text), paths(tmp_path), uplink, "")
        assert not uplink.name
        assert (tmp_path / "joining.json").stat().st_mode & 0o777 == 0o600
        assert await join(JoinOptions(join=text), paths(tmp_path), uplink, "") == "n3"
        keys = {x509.load_pem_x509_csr(one.encode()).public_key().public_numbers() for one in asked}  # type: ignore[union-attr]
        assert len(keys) == 1
        assert not (tmp_path / "joining.json").exists()
        with pytest.raises(ConflictError, match="is node n3 of a cluster already"):
            await join(JoinOptions(join=text), paths(tmp_path), uplink, "")
        await uplink.stop()
    with pytest.raises(BadRequestError, match="TOKEN@SERVER"):
        await join(JoinOptions(join="x"), paths(tmp_path / "run"), _uplink(tmp_path / "run"), "")


async def test_a_nodes_certificate_opens_no_other_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the port for clients, whose authority is another; and it is not a server's."""
    clients = authority.make_root("clients", NOW)
    (tmp_path / "ca.pem").write_text(authority.root_certificate(clients))
    made = authority.issue(clients, "localhost", NOW)
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_bytes(made)
    monkeypatch.setenv("PYSTACK_CERT_PATH", str(tmp_path))
    port = free_port()
    listener = tls.TlsListener(f"tcp://127.0.0.1:{port}", tmp_path / "nowhere")
    known = credentials()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    load_certificate(context, (known.certificate + known.key).encode(), tmp_path)
    reader, _ = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
        await reader.read()
    listener.close()

    posing = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_certificate(posing, (known.certificate + known.key).encode(), tmp_path)
    served = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=posing)
    with pytest.raises(UplinkError, match="none of the cluster's"):
        await dial(f"127.0.0.1:{served.sockets[0].getsockname()[1]}", servers_context(known.authority, JOIN))
    served.close()


async def test_who_has_no_certificate_has_no_link(tmp_path: Path) -> None:
    from agent.contract.joining import LINK

    async with listening(tmp_path) as (listener, address):
        reader, writer, greeting = await dial(address, servers_context(authority.root_certificate(ROOT), LINK))
        assert greeting.server == "n1"
        await send_line(writer, LinkHello())
        assert (await receive_line(reader, LinkAnswer)).error == "a node shows its certificate"
        assert not list(listener.links)
        writer.close()


@pytest.mark.timeout(60)
async def test_a_wrong_clock_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """That of this machine, by the server's certificate and by its own."""
    later = authority.make_root("nodes", NOW + datetime.timedelta(days=400))
    async with listening(tmp_path, later) as (_, address):
        with pytest.raises(UplinkError, match=r"not valid at this machine's time, 2\d{3}-.*set the clock"):
            await dial(address, servers_context(authority.root_certificate(later), JOIN))
    ended = credentials(now=NOW - datetime.timedelta(days=100), days=90)
    async with listening(tmp_path) as (_, address):
        uplink = _uplink(tmp_path)
        uplink.take(msgspec.structs.replace(ended, given=(address,)))
        while "join again with a new token" not in caplog.text:
            await asyncio.sleep(0.02)
        assert "this machine's time is" in caplog.text
        await uplink.stop()


async def test_a_new_certificate_is_kept_before_it_is_used(tmp_path: Path) -> None:
    """And the old one stays where no server gives another."""
    known = credentials()
    refuse = True

    async def enrol(request: JoinRequest, peer: Peer) -> JoinAnswer:
        assert (request.secret, peer.node) == ("", "0123")
        assert peer.key == authority.certificate_key_hash(known.certificate.encode())
        if refuse:
            raise PystackError("the store is full")
        return JoinAnswer(name="n3", certificate=authority.certify_node(ROOT, request.request, peer.node, NOW, 90)[0])

    async with listening(tmp_path) as (listener, address):
        listener.enrol = enrol
        uplink = _uplink(tmp_path)
        uplink.take(msgspec.structs.replace(known, given=(address,)))
        before = (tmp_path / "uplink.json").read_bytes()
        with pytest.raises(ConflictError, match="the store is full"):
            await uplink.rotate()
        assert (tmp_path / "uplink.json").read_bytes() == before
        refuse = False
        await uplink.rotate()
        after = (tmp_path / "uplink.json").read_bytes()
        assert after != before
        assert known.key.splitlines()[1].encode() not in after
        await uplink.stop()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[1,2]\n",
        b'{"request": 5}\n',
        b"GET / HTTP/1.1\r\n\r\n",
        b"x" * 200_000,
        b"\xff\xfe\n",
        b'{"request":"-----"}\n',
    ],
)
async def test_what_strangers_say_is_survived(tmp_path: Path, line: bytes) -> None:
    async def enrol(request: JoinRequest, peer: Peer) -> JoinAnswer:
        raise RefusedError("no")

    async with listening(tmp_path) as (listener, address):
        listener.enrol = enrol
        reader, writer, _ = await dial(address, servers_context(authority.root_certificate(ROOT), JOIN))
        writer.write(line)
        if line.endswith(b"x") or not line:
            writer.close()
        async with asyncio.timeout(10):
            try:
                answer = await reader.read()
            except OSError:
                answer = b""
        assert answer in (b"", b'{"error":"no"}\n')
        request = JoinRequest(request="x", secret=SECRET, clock=time.time())
        answered = await ask(address, servers_context(authority.root_certificate(ROOT), JOIN), request)
        assert answered.error == "no"
        writer.close()
