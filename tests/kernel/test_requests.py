"""Requests to a node's API that no client sends: each gets one sentence that says where it is wrong, and the node goes on.

What the fuzzer (`make fuzz`) found stands here by name."""

from __future__ import annotations

import contextlib
import json
import socket
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Pystack, eventually
from tests.daemons import held

pytestmark = pytest.mark.kernel


def ask(lab: Pystack, method: str, path: str, body: object = None, *, raw: bytes = b"") -> tuple[int, str]:
    """(status, message) of the node's answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    got = b""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(Path(lab.environment["PYSTACK_ROOT"]) / "run" / "docker.sock"))
        sock.sendall(raw or head.encode() + data)
        while more := sock.recv(1 << 16):
            got += more
    top, _, rest = got.partition(b"\r\n\r\n")
    try:
        message = json.loads(rest)["message"]
    except (ValueError, KeyError, TypeError):
        message = rest.decode(errors="replace")
    return int(top.split(b" ")[1]), message


def logged(lab: Pystack) -> str:
    return (Path(lab.environment["PYSTACK_ROOT"]) / "server.log").read_text()


def host(**fields: Any) -> dict[str, Any]:
    return {"Image": "busybox", "HostConfig": fields}


CREATE: dict[str, tuple[object, str]] = {
    "a list where an object is": ([], "$: an object is wanted here, and this is a list"),
    "a number where an object is": ({"Image": "busybox", "HostConfig": 5}, "$.HostConfig"),
    "a text where an object is": ({"Image": "busybox", "Labels": "x"}, "$.Labels"),
    "a number where a text is": ({"Image": 5}, "$.Image"),
    "memory of less than nothing": (host(Memory=-5), "$.HostConfig.Memory"),
    "memory of 2^70": (host(Memory=1 << 70), "$.HostConfig.Memory"),
    "a size in words": (host(ShmSize="64m"), "$.HostConfig.ShmSize"),
    "an object where a size is": (host(Mounts=[{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": 7}]), "TmpfsOptions"),
    "a mount without a target": (host(Mounts=[{"Type": "tmpfs"}]), "Target"),
    "a port of no number": (host(PortBindings={"http/tcp": [{}]}), 'invalid port specification: "http"'),
    "a port of other digits": (host(PortBindings={"٨٠/tcp": [{}]}), "invalid port specification"),
    "a port that does not exist": (host(PortBindings={"80/tcp": [{"HostPort": "70000"}]}), "70000 does not exist"),
    "a protocol of one's own": (host(PortBindings={"80/quic": [{}]}), "invalid proto: "),
    "an address that is none": (host(PortBindings={"80/tcp": [{"HostIp": "1.2.3"}]}), "'1.2.3' is not an IP address"),
    "a MAC address that is none": ({"Image": "busybox", "MacAddress": "02:42"}, "is not of the form"),
    "an address on a network that is none": (
        {"Image": "busybox", "NetworkingConfig": {"EndpointsConfig": {"x": {"IPAMConfig": {"IPv4Address": "::g"}}}}},
        "not an IP address",
    ),
    "a zero byte in a command": ({"Image": "busybox", "Cmd": ["a\0b"]}, "$.Cmd"),
    "a limit of a limit": (host(Ulimits=[{"Name": "nofile", "Soft": "x", "Hard": 1}]), "Ulimits"),
    "brackets": (b'{"Image": "busybox", "ExposedPorts": {"x": ' + b"[" * 100_000, "nested too deeply"),
    "text that is no UTF-8": (b'{"Image": "\xff"}', "malformed request"),
}


@pytest.mark.parametrize(("body", "said"), CREATE.values(), ids=CREATE)
def test_a_container_that_cannot_be(lab: Pystack, body: object, said: str) -> None:
    before = logged(lab)
    status, message = ask(lab, "POST", "/containers/create", body)
    assert status == 400
    assert said in message
    assert "Error" not in message
    assert logged(lab) == before


BUNDLE = {"digest": "sha256:" + "1" * 64, "config": "", "layers": []}


def named(pattern: str) -> str:
    return "/containers/json?all=1&filters=" + urllib.parse.quote(json.dumps({"name": [pattern]}))


PATHS: dict[str, tuple[str, str, object, int, str]] = {
    "a zero byte in a name": ("GET", "/containers/a%00b/json", None, 400, "zero byte"),
    "a zero byte in a parameter": ("GET", "/images/json?filter=a%00b", None, 400, "zero byte"),
    "a way out of the volumes": ("GET", "/pystack/volumes/..%2F..%2Fetc/checksum", None, 404, "there is no name ../../etc"),
    "a blob that is a path": ("PUT", "/pystack/blobs/..%2F..%2F..%2Ftmp%2Fx?diff_id=x", b"", 404, "there is no digest"),
    "a blob of no digest": ("PUT", "/pystack/blobs/x?diff_id=..", b"", 500, "is not sha256:"),
    "a layer of no digest": ("PUT", f"/pystack/blobs/sha256:{'0' * 64}?diff_id=../../x", b"", 500, "is not sha256:"),
    "a volume that has not come": ("POST", "/pystack/volumes/x/commit", {"name": "x" * 99, "driver": "local"}, 404, "nothing"),
    "a volume of no name": ("POST", "/pystack/volumes/x/commit", {"name": "../x", "driver": "local"}, 400, "letters, digits"),
    "a volume of a long name": ("POST", "/volumes/create", {"Name": "x" * 256}, 400, "includes invalid"),
    "a checksum of a long name": ("GET", f"/pystack/volumes/{'x' * 250}/checksum?arriving=1", None, 400, "more than 245"),
    "the end of a long name": ("DELETE", f"/pystack/volumes/{'x' * 250}/dump", None, 400, "more than 245"),
    "a port of a power": ("POST", "/pystack/containers/x/dial?port=%C2%B2", None, 400, "port="),
    "a filter of a power": ("GET", "/containers/json?all=1&filters=%7B%22expose%22:%5B%22%C2%B2%22%5D%7D", None, 400, "a port"),
    "a filter of many digits": ("GET", named("x").replace("name", "publish").replace("x", "9" * 5000), None, 400, "a port"),
    "a number that is none": ("GET", "/containers/json?limit=x", None, 400, "limit=x: a whole number"),
    "a number of other digits": ("GET", "/containers/json?limit=٣".encode().decode("latin-1"), None, 400, ""),
    "filters that are none": ("GET", "/volumes?filters=%5B%5D", None, 400, "an object of lists"),
    "filters of brackets": ("GET", "/volumes?filters=" + "%5B" * 2000, None, 400, "an object of lists"),
    "a pattern that never ends": ("GET", named("(a+)+b"), None, 400, "behind a bracket"),
    "a tag without a name": ("POST", "/images/busybox/tag", None, 400, "repo is missing"),
    "an image of nothing": ("POST", "/pystack/images/commit", BUNDLE, 500, "lacks its manifest"),
    "an underlay that is none": ("GET", "/pystack/info?underlay=x", None, 400, "underlay=x: an IP address"),
    "a volume that is an object": ("POST", "/volumes/create", {"Name": {}}, 400, "$.Name"),
    "a network of numbers": ("POST", "/networks/create", {"Name": "n", "Labels": 5}, 400, "$.Labels"),
    "an update of lists": ("POST", "/containers/x/update", {"NanoCpus": []}, 400, "$.NanoCpus"),
}


@pytest.mark.parametrize(("method", "path", "body", "status", "said"), PATHS.values(), ids=PATHS)
def test_a_request_that_cannot_be(lab: Pystack, method: str, path: str, body: object, status: int, said: str) -> None:
    before = logged(lab)
    found, message = ask(lab, method, path, body)
    assert found == status
    assert said in message
    assert logged(lab) == before


RAW = {
    "two lengths": b"GET /info HTTP/1.1\r\nHost: d\r\nContent-Length: 5, 5\r\n\r\n",
    "a header without end": b"GET /info HTTP/1.1\r\nHost: d\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
    "no HTTP": b"\0\1\2\3\r\n\r\n",
    "chunks of no size": b"POST /volumes/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "what is not compressed": b"POST /volumes/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Encoding: gzip\r\n"
    b"Content-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
def test_what_is_no_http_leaves_no_traceback(lab: Pystack, raw: bytes) -> None:
    before = logged(lab)
    assert ask(lab, "", "", raw=raw)[0] == 400
    assert logged(lab) == before


def test_a_network_that_cannot_be_computed_keeps_no_other_from_being(lab: Pystack) -> None:
    """One with an MTU of "a@b" was taken, and from then on no container of the node came onto any network."""
    wish = {"Name": "odd", "Options": {"com.docker.network.driver.mtu": "a@b"}}
    status, message = ask(lab, "POST", "/networks/create", wish)
    assert status == 400
    assert "a number from 68 to 65535" in message
    assert ask(lab, "GET", "/pystack/doctor")[0] == 200


def test_more_than_a_body_may_have_is_not_read(lab: Pystack) -> None:
    head = b"POST /volumes/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 99999999999\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(Path(lab.environment["PYSTACK_ROOT"]) / "run" / "docker.sock"))
        with contextlib.suppress(ConnectionError):  # it had enough
            sock.sendall(head + b"{" * (65 << 20))
        assert b" 413 " in sock.recv(1 << 16)


def test_a_client_that_leaves_within_an_upload_is_no_traceback(lab: Pystack) -> None:
    before = logged(lab)
    head = b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: 1000\r\n\r\nabc"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(Path(lab.environment["PYSTACK_ROOT"]) / "run" / "docker.sock"))
        sock.sendall(head)
    assert ask(lab, "GET", "/info")[0] == 200
    assert "Traceback" not in logged(lab).removeprefix(before)
    assert not list(Path(lab.environment["PYSTACK_ROOT"]).glob("load-*"))


def test_who_attaches_to_what_never_starts_and_leaves_is_forgotten(lab: Pystack) -> None:
    """A client may end its input and read on: only the end of both directions is a hang-up."""
    path = str(Path(lab.environment["PYSTACK_ROOT"]) / "run" / "docker.sock")
    assert ask(lab, "POST", "/containers/create?name=never", {"Image": "busybox", "Cmd": ["true"]})[0] == 201
    try:
        before = held(path).descriptors
        clients = []
        for _ in range(30):
            clients.append(socket.socket(socket.AF_UNIX))
            clients[-1].connect(path)
            clients[-1].sendall(
                b"POST /containers/never/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n"
            )
            assert clients[-1].recv(100).startswith(b"HTTP/1.1 200")
        assert held(path).descriptors >= before + 25  # of what it held before, some may be closed by now
        for client in clients:
            client.close()

        def let_go() -> None:
            assert held(path).descriptors < before + 10

        eventually(let_go, 30)
    finally:
        assert ask(lab, "DELETE", "/containers/never?force=1")[0] == 204
