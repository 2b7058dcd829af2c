"""Requests to a node's API: a real daemon in a lab of its own, over its socket. Bodies, parameters, paths and the HTTP itself
are spoiled; no answer may be a fault of ours, and nothing may appear in the daemon's log but lines."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agent.contract.container import Container
from agent.contract.manifest import Manifest
from tests.daemons import grown, held, opened
from tests.fuzz import mutate
from tests.fuzz.area import HANG_S, Area, Run, unfit
from tests.images import archive, busybox_rootfs

LABS = Path("/var/lib/pystack-lab")
STREAM_S = 0.04
"""How long an answer that may go on for ever is listened to."""
FAULT = re.compile(
    r"^(?:malformed request: )?[A-Z]\w*(Error|Exception)\b|invalid literal|object has no attribute|not subscriptable|"
    r"unhashable|NoneType|positional argument|unexpected keyword|not supported between|cannot unpack|embedded null|"
    r"must be str, not|argument of type"
)
"""Words of Python, which say nothing to who sent the request."""

CREATE: dict[str, Any] = {
    "Image": "busybox",
    "Cmd": ["true"],
    "Entrypoint": ["sh"],
    "Env": ["A=b"],
    "User": "app",
    "WorkingDir": "/srv",
    "Hostname": "h",
    "Domainname": "d",
    "Labels": {"a": "b"},
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "StopSignal": "SIGTERM",
    "StopTimeout": 1,
    "MacAddress": "02:42:ac:11:00:02",
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 10**9, "Timeout": 10**9, "Retries": 3, "StartPeriod": 0},
    "ExposedPorts": {"80/tcp": {}},
    "Volumes": {"/data": {}},
    "HostConfig": {
        "NetworkMode": "bridge",
        "Binds": ["v1:/v1:ro"],
        "Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 65536}}],
        "Tmpfs": {"/tmpfs": "rw,size=1m"},
        "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]},
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 1},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        "CapAdd": ["NET_ADMIN"],
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Memory": 1 << 26,
        "MemorySwap": -1,
        "MemoryReservation": 1 << 25,
        "NanoCpus": 10**9,
        "CpuShares": 512,
        "CpuPeriod": 100000,
        "CpuQuota": 50000,
        "CpusetCpus": "0",
        "PidsLimit": 100,
        "ShmSize": 1 << 20,
        "MemorySwappiness": 10,
        "OomScoreAdj": 100,
        "BlkioWeight": 100,
        "BlkioDeviceReadBps": [{"Path": "/dev/null", "Rate": 1000}],
        "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}],
        "Sysctls": {"net.core.somaxconn": "10"},
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "rwm"}],
        "DeviceRequests": [{"Driver": "", "Count": 1, "DeviceIDs": None, "Capabilities": [["gpu"]]}],
        "DeviceCgroupRules": ["c 1:3 rwm"],
        "VolumesFrom": [],
        "PidMode": "",
        "IpcMode": "",
        "UTSMode": "",
        "UsernsMode": "",
        "GroupAdd": ["audio"],
        "ExtraHosts": ["a:1.2.3.4"],
        "Dns": ["1.1.1.1"],
        "DnsSearch": ["x"],
        "DnsOptions": ["ndots:1"],
        "Links": ["c1:alias"],
        "Annotations": {"a": "b"},
        "Init": False,
        "AutoRemove": False,
        "Privileged": False,
        "ReadonlyRootfs": True,
        "CgroupParent": "",
        "PublishAllPorts": False,
    },
    "NetworkingConfig": {
        "EndpointsConfig": {"n1": {"Aliases": ["a"], "IPAMConfig": {"IPv4Address": "10.77.0.9"}, "MacAddress": ""}}
    },
}
NETWORK: dict[str, Any] = {
    "Name": "n2",
    "Driver": "bridge",
    "Internal": False,
    "Attachable": True,
    "EnableIPv6": False,
    "Labels": {"a": "b"},
    "Options": {"com.docker.network.driver.mtu": "1400"},
    "IPAM": {
        "Config": [
            {
                "Subnet": "10.78.0.0/24",
                "Gateway": "10.78.0.1",
                "IPRange": "10.78.0.128/25",
                "AuxiliaryAddresses": {"x": "10.78.0.2"},
            }
        ]
    },
}
BUNDLE = {
    "digest": "sha256:" + "1" * 64,
    "config": "sha256:" + "2" * 64,
    "names": ["docker.io/library/x:1"],
    "layers": [{"digest": "sha256:" + "3" * 64, "diff_id": "sha256:" + "4" * 64, "size": 5}],
}
MANIFEST = json.loads(msgspec.json.encode(Manifest()))
FILTERS = {
    "label": ["a=b"],
    "status": ["exited"],
    "name": ["x"],
    "until": ["10m"],
    "dangling": ["true"],
    "ancestor": ["busybox"],
}
CONNECT = {"Container": "c1", "EndpointConfig": {"Aliases": ["b"], "IPAMConfig": {"IPv4Address": "10.77.0.77"}}}
UPDATE = {
    "Memory": 1 << 26,
    "NanoCpus": 10**9,
    "PidsLimit": 50,
    "CpuShares": 2,
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
}
EXEC = {
    "Cmd": ["true"],
    "Env": ["A=b"],
    "User": "0:0",
    "WorkingDir": "/",
    "Tty": False,
    "AttachStdin": False,
    "Privileged": False,
}
COMMIT = {"Cmd": ["x"], "Env": ["A=b"], "Labels": {"a": "b"}, "User": "u", "Volumes": {"/x": {}}, "ExposedPorts": {"1/tcp": {}}}

# method, path, query, body; ~ before the method: the answer may go on for ever
Call = tuple[str, str, dict[str, str], Any]
CALLS: tuple[Call, ...] = (
    *(("POST", "/containers/create", {"name": "fuzzed"}, CREATE),) * 14,
    ("GET", "/containers/json", {"all": "1", "limit": "3", "size": "1", "filters": json.dumps(FILTERS)}, None),
    ("GET", "/containers/c1/json", {"size": "1"}, None),
    ("GET", "/containers/c1/top", {"ps_args": "-ef"}, None),
    ("~GET", "/containers/c1/stats", {"stream": "0", "one-shot": "1"}, None),
    (
        "~GET",
        "/containers/c1/logs",
        {"stdout": "1", "tail": "5", "since": "1", "until": "2030-01-01T00:00:00Z", "timestamps": "1"},
        None,
    ),
    ("GET", "/containers/c1/changes", {}, None),
    ("GET", "/containers/c1/archive", {"path": "/etc/passwd"}, None),
    ("HEAD", "/containers/c1/archive", {"path": "/srv"}, None),
    ("PUT", "/containers/c1/archive", {"path": "/tmp"}, b"no tar"),
    ("POST", "/containers/c1/rename", {"name": "c1"}, None),
    *(("POST", "/containers/c2/update", {}, UPDATE),) * 3,
    ("POST", "/containers/c1/resize", {"h": "10", "w": "20"}, None),
    ("POST", "/containers/c1/kill", {"signal": "WINCH"}, None),
    ("POST", "/containers/c2/stop", {"t": "1", "signal": "TERM"}, None),
    ("~POST", "/containers/c2/wait", {"condition": "not-running"}, None),
    ("~POST", "/containers/c2/attach", {"stream": "0", "logs": "1"}, None),
    ("POST", "/containers/prune", {"filters": json.dumps({"label": ["none=such"], "until": ["1"]})}, None),
    *(("POST", "/containers/c1/exec", {}, EXEC),) * 2,
    ("~POST", "/exec/none/start", {}, {"Detach": True, "Tty": False, "ConsoleSize": [10, 20]}),
    ("POST", "/exec/none/resize", {"h": "10", "w": "20"}, None),
    ("POST", "/commit", {"container": "none", "repo": "x", "tag": "1", "changes": "CMD x"}, COMMIT),
    (
        "GET",
        "/images/json",
        {"filters": json.dumps({"reference": ["bus*"], "before": ["busybox"], "until": ["5"], "label": ["x"]}), "filter": "x"},
        None,
    ),
    ("GET", "/images/busybox/json", {}, None),
    ("GET", "/images/busybox/history", {}, None),
    ("POST", "/images/busybox/tag", {"repo": "other", "tag": "1"}, None),
    ("DELETE", "/images/nothing:1", {"force": "1"}, None),
    ("~POST", "/images/create", {"fromSrc": "-", "repo": "imported", "tag": "1", "changes": 'CMD ["x"]'}, b"no tar"),
    ("~POST", "/images/load", {}, b"no tar"),
    ("GET", "/images/get", {"names": "none"}, None),
    ("POST", "/images/prune", {"filters": json.dumps({"dangling": ["true"], "until": ["1"]})}, None),
    *(("POST", "/networks/create", {}, NETWORK),) * 5,
    (
        "GET",
        "/networks",
        {"filters": json.dumps({"driver": ["bridge"], "scope": ["local"], "type": ["custom"], "id": ["1"]})},
        None,
    ),
    ("GET", "/networks/n1", {}, None),
    ("DELETE", "/networks/n2", {}, None),
    *(("POST", "/networks/n1/connect", {}, CONNECT),) * 2,
    ("POST", "/networks/n1/disconnect", {}, {"Container": "c1", "Force": True}),
    *(("POST", "/volumes/create", {}, {"Name": "v2", "Driver": "local", "Labels": {"a": "b"}, "DriverOpts": {}}),) * 4,
    ("GET", "/volumes", {"filters": json.dumps({"dangling": ["true"], "driver": ["local"], "label": ["a"]})}, None),
    ("GET", "/volumes/v1", {}, None),
    ("DELETE", "/volumes/v2", {"force": "1"}, None),
    ("~GET", "/events", {"since": "1", "until": "2", "filters": json.dumps({"type": ["container"], "event": ["x"]})}, None),
    ("GET", "/info", {}, None),
    ("GET", "/version", {}, None),
    ("GET", "/system/df", {}, None),
    ("POST", "/auth", {}, {"username": "u"}),
    ("POST", "/pystack/images/ids", {}, ["busybox", "none"]),
    ("POST", "/pystack/images/ages", {}, ["busybox"]),
    ("GET", "/pystack/images/busybox/bundle", {}, None),
    *(("POST", "/pystack/images/missing-layers", {}, BUNDLE),) * 2,
    *(("POST", "/pystack/images/commit", {}, BUNDLE),) * 2,
    ("GET", "/pystack/blobs/sha256:" + "0" * 64, {}, None),
    ("PUT", "/pystack/blobs/sha256:" + "0" * 64, {"diff_id": ""}, b"blob"),
    *(("PUT", "/pystack/manifest", {}, MANIFEST),) * 3,
    ("PATCH", "/pystack/manifest", {}, {"base": "x", "digest": "y", "put": {}, "delete": {}}),
    ("GET", "/pystack/info", {"underlay": "10.0.0.1"}, None),
    ("GET", "/pystack/status", {}, None),
    ("~GET", "/pystack/status/stream", {}, None),
    ("~GET", "/pystack/doctor", {}, None),
    ("~POST", "/pystack/containers/c1/dial", {"port": "1"}, None),
    *(
        (
            "POST",
            "/pystack/containers",
            {"name": "whole", "stack": "s"},
            json.loads(msgspec.json.encode(Container(image="busybox"))),
        ),
    )
    * 3,
    ("~POST", "/pystack/probe", {}, [{"target": "127.0.0.1", "size": 56}]),
    ("GET", "/pystack/volumes/v1/checksum", {"arriving": "1", "entries": "1"}, None),
    ("GET", "/pystack/volumes/v1/record", {}, None),
    ("~PUT", "/pystack/volumes/v9/dump", {"first": "1"}, b"no tar"),
    ("POST", "/pystack/volumes/v9/commit", {}, {"name": "v9", "driver": "local", "created": "", "labels": {}, "options": {}}),
    ("DELETE", "/pystack/volumes/v9/dump", {}, None),
    ("GET", "/swarm", {}, None),
)
ODD_HEADERS = (
    "Content-Length: -1",
    "Content-Length: 99999999999999999999",
    "Content-Length: 5, 5",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: x",
    "Content-Encoding: gzip",
    "Content-Encoding: zstd",
    "Content-Type: multipart/form-data; boundary=x",
    "Content-Type: \xff",
    "Expect: 100-continue",
    "Upgrade: tcp\r\nConnection: Upgrade",
    "Host: [",
    "Host:",
    "X: " + "y" * 20000,
    "A" * 9000 + ": b",
    "Cookie: " + "a=b;" * 1000,
    "Range: bytes=5-1",
    "If-None-Match: *",
    "X-Registry-Auth: ////",
)


FILTERS_OF = {path: query["filters"] for _, path, query, _ in CALLS if "filters" in query}
STARTED = 0.02
"""Of the requests, those that make a container of a spoiled body and start it."""
OF_THE_HOST = (
    "Binds",
    "Mounts",
    "Devices",
    "VolumesFrom",
    "CgroupParent",
    "Privileged",
    "PidMode",
    "IpcMode",
    "UTSMode",
    "NetworkMode",
)
"""What a container that is started here must not have: it is real."""


def startable(rng: random.Random) -> bytes:
    """A spoiled body of a container without what would reach the host."""
    data = mutate.document(rng, json.dumps(CREATE))
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return data
    if isinstance(body, dict):
        body["Image"], host = "busybox", body.get("HostConfig")
        if isinstance(host, dict):
            for key in OF_THE_HOST:
                host.pop(key, None)
    return json.dumps(body).encode()


def request(rng: random.Random, calls: Sequence[Call]) -> tuple[bytes, bool]:
    """A request, and whether there need be no answer before its client goes away."""
    method, path, query, body = rng.choice(calls)
    endless, method = method.startswith("~"), method.lstrip("~")
    query = dict(query)
    for _ in range(rng.choice((0, 0, 1, 2))):
        if query:
            key = rng.choice(list(query))
            odd = mutate.odd(rng)
            if key == "filters" and rng.random() < 0.6:
                odd = mutate.document(rng, FILTERS_OF.get(path, "{}")).decode(errors="replace")
            query[key] = str(odd)
    parts = path.split("/")
    if rng.random() < 0.25:
        parts[rng.randrange(1, len(parts))] = rng.choice((*mutate.TEXTS, "c1", "busybox", "n1", "v1"))
    target = "/".join(urllib.parse.quote(p, safe=":%", errors="surrogatepass") for p in parts)
    if rng.random() < 0.2:
        target = rng.choice(("/v1.43", "/v1.24", "/v1.999", "/v2", "/v1.٣", "//", "/v1.43/..")) + target
    if query:
        target += "?" + urllib.parse.urlencode(query, errors="surrogatepass")
    if isinstance(body, bytes):
        data = mutate.some(rng, rng.choice((body, archive_bytes())))
    elif body is None:
        data = b"" if rng.random() < 0.9 else b"{}"
    else:
        data = mutate.document(rng, json.dumps(body))
    headers = ["Host: d", "Connection: close", f"Content-Length: {len(data)}"]
    chance = rng.random()
    if chance < 0.08:
        headers[rng.randrange(1, 3)] = rng.choice(ODD_HEADERS)
    raw = (
        f"{method} {target} HTTP/1.1\r\n".encode("ascii", "replace") + "\r\n".join([*headers, "", ""]).encode("latin-1") + data
    )
    return (mutate.some(rng, raw) if chance > 0.95 else raw), endless or chance < 0.08 or chance > 0.95


_ARCHIVE: list[bytes] = []


def archive_bytes() -> bytes:
    if not _ARCHIVE:
        with tempfile.TemporaryDirectory() as folder:
            from tests.images import tar_of

            _ARCHIVE.append(
                archive(Path(folder) / "i.tar", [tar_of({"a": b"b"})], name="docker.io/library/loaded:1").read_bytes()
            )
    return _ARCHIVE[0]


class Requests(Area):
    name = "api"
    share = 0.08

    calls: Sequence[Call] = CALLS
    started = STARTED
    socket = "docker.sock"
    longest = 2000

    def __init__(self) -> None:
        self._lab = f"f{uuid.uuid4().hex[:6]}"

    def _labs(self, *words: str) -> None:
        quiet = {k: v for k, v in os.environ.items() if not k.startswith(("PYSTACK_", "COMPOSE_", "DOCKER_"))}
        command = [sys.executable, "-m", "orchestrator", "lab", words[0], "--name", self._lab, *words[1:]]
        subprocess.run(command, check=True, env=quiet, stdout=subprocess.DEVNULL)

    def tidy(self) -> None:
        if (LABS / self._lab).exists():
            self._labs("down")

    def run(self, inputs: Iterable[int], run: Run) -> None:
        machine = LABS / self._lab / "n1"
        self._labs("up", "--nodes", "1")
        node = Node(machine, self.socket)
        node.furnish()
        before = held(node.socket)
        for number, index in enumerate(inputs):
            if number % 400 == 399:
                run.begin(index)
                node.furnish()
            self._try(index, run, node)
        patience = time.monotonic() + HANG_S  # the daemon may still be at a request whose client went away
        while left := half_made(machine):
            if time.monotonic() > patience:
                run.fault(-1, f"half-made things are left: {left[:5]}")
                break
            time.sleep(0.05)
        while why := grown(before, after := held(node.socket)):
            if time.monotonic() > patience:
                run.fault(-1, f"{why}: {opened(node.socket)[:8]}")
                break
            time.sleep(0.05)
        print(f"{self.name}: the daemon had {before} first, and has {after} now", flush=True)

    def _try(self, index: int, run: Run, node: Node) -> None:
        rng = run.rng(index)
        run.begin(index)
        if rng.random() < self.started:
            self._start(index, rng, run, node)
            return
        data, endless = request(rng, self.calls)
        before = node.log.stat().st_size
        try:
            status, body = node.ask(data, STREAM_S if endless else HANG_S - 1)
        except TimeoutError:
            status, body = 0, b""
            run.fault(index, f"no answer within {HANG_S - 1:.0f} s: {data[:200]!r}", late=True)
        except OSError as error:
            status, body = 0, b""
            run.fault(index, f"the daemon does not take it: {error}: {data[:200]!r}")
        run.done(refused=status >= 400)
        self._judge(index, run, node, before, status, body, data)

    def _start(self, index: int, rng: random.Random, run: Run, node: Node) -> None:
        """Made, started and taken away."""
        before, data = node.log.stat().st_size, startable(rng)
        status = 0
        for method, path, content in (
            ("POST", "/containers/create?name=started", data),
            ("POST", "/containers/started/start", b""),
            ("DELETE", "/containers/started?force=1&v=1", b""),
        ):
            try:
                status, body = node.ask(head(method, path, len(content)) + content, HANG_S - 1)
            except OSError as error:
                run.fault(index, f"{path}: {type(error).__name__}: {error}", late=isinstance(error, TimeoutError))
                continue
            self._judge(index, run, node, before, status, body, data)
            if status >= 400 and "create" in path:
                break
        run.done(refused=status >= 400)

    def _judge(self, index: int, run: Run, node: Node, before: int, status: int, body: bytes, data: bytes) -> None:
        if why := wrong(status, body, self.longest):
            run.fault(index, f"{why}: {status} {body[:300]!r} to {data[:160]!r}")
        if node.log.stat().st_size > before:
            with node.log.open("rb") as file:
                file.seek(before)
                said = file.read(20000)
            if b"Traceback" in said or b"Error handling" in said:
                run.fault(index, f"the daemon's log has {said[-700:]!r} for {data[:160]!r}")


def half_made(machine: Path) -> list[str]:
    """What of images was begun on the node and has not ended."""
    return [p.name for p in (*(machine / "layers").glob("*.tmp"), *(machine / "images/blobs/sha256").glob("*.tmp"))]


def head(method: str, path: str, size: int) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n".encode()


def wrong(status: int, body: bytes, longest: int) -> str:
    """Why this is no answer for a user; "" where it is one."""
    if status < 400:
        return ""
    try:
        message = json.loads(body)["message"]
    except (ValueError, TypeError, KeyError):
        # aiohttp's own words about what is no HTTP at all
        return "" if status in (400, 404, 405, 413, 417) and b"Traceback" not in body else "an error without a message"
    if found := FAULT.search(message):
        return f"Python's words {found[0]!r}"
    return unfit(message, longest)


class Node:
    """A daemon as a client sees it."""

    def __init__(self, machine: Path, asked: str) -> None:
        self.socket, self._docker = str(machine / "run" / asked), str(machine / "run" / "docker.sock")
        self.log = machine / "server.log"
        self._image = archive(machine / "fuzz.tar", [busybox_rootfs()], name="docker.io/library/busybox:latest").read_bytes()

    def ask(self, data: bytes, patience_s: float, path: str = "") -> tuple[int, bytes]:
        """(status, body) of the answer, of the socket *path* or its own, as far as it came in time.

        Raises TimeoutError where none did and one should."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(patience_s)
            sock.connect(path or self.socket)
            got = b""
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(data)
            try:
                while len(got) < 1 << 20 and (more := sock.recv(1 << 16)):
                    got += more
            except ConnectionResetError:
                pass
            except TimeoutError:
                if patience_s > STREAM_S:
                    raise
        top, _, body = got.partition(b"\r\n\r\n")
        words = top.split(b" ", 2)
        if b"transfer-encoding: chunked" in top.lower():
            body = b"".join(body.split(b"\r\n")[1::2])
        return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), body

    def call(self, method: str, path: str, body: object = None) -> int:
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        return self.ask(head(method, path, len(data)) + data, 30, self._docker)[0]

    def furnish(self) -> None:
        """What requests name is there: an image, a container that runs and one that does not, a network, a volume."""
        if self.call("GET", "/images/busybox/json") != 200:
            assert self.call("POST", "/images/load", self._image) == 200
        if self.call("GET", "/networks/n1") != 200:
            self.call("POST", "/networks/create", {"Name": "n1", "IPAM": {"Config": [{"Subnet": "10.77.0.0/24"}]}})
        self.call("POST", "/volumes/create", {"Name": "v1"})
        for name in ("c1", "c2"):
            if self.call("GET", f"/containers/{name}/json") != 200:
                body = {"Image": "busybox", "Cmd": ["sleep", "1000000"]}
                assert self.call("POST", f"/containers/create?name={name}", body) == 201
        self.call("POST", "/containers/c1/start")
        for name in ("fuzzed", "whole"):
            self.call("DELETE", f"/containers/{name}?force=1")
