"""What somebody does who has stolen a node's uplink.json: `python -m tests.kernel.thief FILE ADDRESS WHAT`.

Prints one JSON document."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import sys
import tempfile
import time
from pathlib import Path

import h2.config
import h2.connection
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from agent.contract.joining import (
    JOIN,
    LINK,
    SERVER_NAME,
    JoinRequest,
    LinkAnswer,
    LinkHello,
    load_certificate,
    receive_line,
    send_line,
)
from agent.contract.multiplex import Channel, Multiplexer
from agent.uplink import Credentials, UplinkError, ask, certificate_request, dial, new_key, servers_context

known = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Credentials)
address = sys.argv[2]


def context(protocol: str) -> ssl.SSLContext:
    made = servers_context(known.authority, protocol)
    load_certificate(made, (known.certificate + known.key).encode(), Path(tempfile.mkdtemp()))
    return made


async def link() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, LinkAnswer]:
    reader, writer, _ = await dial(address, context(LINK))
    await send_line(writer, LinkHello(address="10.99.0.2"))
    return reader, writer, await receive_line(reader, LinkAnswer)


def _json(document: object) -> bytes:
    body = json.dumps(document).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


async def listen() -> dict[str, object]:
    """Stand in the node's place: all that the server says until it has said enough."""
    reader, writer, answer = await link()
    if answer.error:
        return {"error": answer.error}
    got = bytearray()

    async def take(channel: Channel) -> None:
        """An agent of which every request fails but those that lead to the manifest."""
        said = bytearray()
        while data := await channel.read():
            got.extend(data)
            said += data
            if b"/pystack/keys/" in said:
                await channel.write(
                    _json({"key": base64.b64encode(X25519PrivateKey.generate().public_key().public_bytes_raw()).decode()})
                )
            elif b"/pystack/status/stream" in said:
                head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nPystack-Heartbeat: 2\r\n\r\n3\r\n{}\n\r\n"
                await channel.write(head.encode())
            elif b"/pystack/info" in said:
                await channel.write(_json({"hostname": "n2", "cpus": 1.0, "memory": 1 << 30, "version": "0.1.0"}))
            else:
                await channel.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            if not said.startswith((b"PUT /pystack/manifest", b"PATCH")):
                said.clear()

    connection = Multiplexer(reader, writer, take)
    running = asyncio.create_task(connection.run())
    await asyncio.sleep(4)
    connection.abort()
    await running
    return {"got": got.decode(errors="replace")}


async def take_the_place() -> dict[str, object]:
    """Renew the certificate before the node does, link by the new one, and stay for as long as it goes."""
    global known
    made = new_key()
    answer = await ask(address, context(JOIN), JoinRequest(request=certificate_request(made)))
    if answer.error:
        return {"error": answer.error}
    known = msgspec.structs.replace(known, key=made, certificate=answer.certificate)
    reader, writer, linked = await link()
    if linked.error:
        return {"error": linked.error}
    began = time.monotonic()
    connection = Multiplexer(reader, writer, lambda channel: channel.write(b"HTTP/1.1 503 no\r\nContent-Length: 0\r\n\r\n"))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(70):
            await connection.run()
    connection.abort()
    _, _, again = await link()
    return {"held_s": time.monotonic() - began, "again": again.error}


async def request_as_another() -> dict[str, object]:
    """Ask for a certificate of another node: by the name in the request, and by the name of the node."""
    key = load_pem_private_key(known.key.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    other = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, sys.argv[4])])
    asked = x509.CertificateSigningRequestBuilder().subject_name(name).sign(other, hashes.SHA256()).public_bytes(Encoding.PEM)
    answer = await ask(address, context(JOIN), JoinRequest(request=asked.decode(), name="n2", underlay="10.99.0.2"))
    if answer.error:
        return {"error": answer.error}
    subject = x509.load_pem_x509_certificate(answer.certificate.encode()).subject
    return {"for": subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value, "name": answer.name}


async def ask_the_server() -> dict[str, object]:
    """Turn the link round: ask where the server asks, in HTTP/2 and in HTTP/1."""
    answers = []
    for way in ("h2", "http/1"):
        reader, writer, answer = await link()
        if answer.error:
            return {"error": answer.error}
        if way == "h2":
            speaks = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
            speaks.initiate_connection()
            head = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"x"), (b":path", b"/v1/nodes")]
            speaks.send_headers(1, head, end_stream=True)
            writer.write(speaks.data_to_send())
        else:
            writer.write(b"GET /v1/nodes HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            async with asyncio.timeout(5):
                answers.append((await reader.read()).decode("latin-1"))
        except (OSError, TimeoutError) as error:
            answers.append(type(error).__name__)
        writer.transport.abort()
    return {"answers": answers}


async def be_a_server() -> dict[str, object]:
    """Show the node's certificate as a server's, to another node."""
    mine = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_certificate(mine, (known.certificate + known.key).encode(), Path(tempfile.mkdtemp()))
    served = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=mine)
    port = served.sockets[0].getsockname()[1]
    try:
        await dial(f"127.0.0.1:{port}", servers_context(known.authority, LINK))
    except UplinkError as error:
        return {"error": str(error)}
    except (OSError, ValueError) as error:
        return {"taken for a server": repr(error)}
    finally:
        served.close()
    return {"taken for a server": SERVER_NAME}


WAYS = {f.__name__: f for f in (listen, take_the_place, request_as_another, ask_the_server, be_a_server)}


async def main() -> None:
    try:
        found = await WAYS[sys.argv[3]]()
    except (OSError, TimeoutError, ValueError, UplinkError) as error:
        found = {"error": str(error)}
    print(json.dumps(found))


asyncio.run(main())
