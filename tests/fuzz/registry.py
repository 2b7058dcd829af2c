"""Registries that lie: a real HTTP server on loopback answers pulls and pushes with spoiled answers, and a second one is where
it sends clients to. No password may reach the second but where a token is asked for."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import os
import random
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec

from agent.errors import AgentError
from agent.images import platforms, pull, types
from agent.images.reference import parse
from agent.images.registry import Registry
from agent.images.store import ImageStore
from agent.paths import Paths
from agent.settings import ImageLimits, Settings
from tests.fuzz import documents, mutate
from tests.fuzz.area import HANG_S, Area, Run, told, unfit
from tests.images import tar_of

AT_ONCE = 96
STALL_S = 0.3
ENDLESS = 48 << 20
"""Bytes after which an endless answer ends after all: nobody may have read that many."""
LIMITS = ImageLimits(manifest_bytes=1 << 20, config_bytes=1 << 20, layers=100, bytes=1 << 24, stall_s=STALL_S)
SECRET = base64.b64encode(b"user:secret").decode()


class Blobs(msgspec.Struct):
    """An image as a registry has it; documents of one input are spoiled."""

    manifest: bytes
    config: bytes
    layer: bytes


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def image(config: bytes | None, tar: bytes) -> Blobs:
    layer = gzip.compress(tar, 1, mtime=0)
    config = (
        config
        or json.dumps(
            {"architecture": platforms.architecture(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": [sha(tar)]}}
        ).encode()
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": types.OCI_MANIFEST,
        "config": {"mediaType": types.OCI_CONFIG, "digest": sha(config), "size": len(config)},
        "layers": [{"mediaType": types.OCI_LAYER + "+gzip", "digest": sha(layer), "size": len(layer)}],
    }
    return Blobs(json.dumps(manifest).encode(), config, layer)


TAR = tar_of({"is": b"good"})
GOOD = image(None, TAR)


class Script:
    """What the server does for one input: to each request the next of *turns*, and then what is right."""

    def __init__(self, rng: random.Random, blobs: Blobs) -> None:
        self.rng = rng
        self.blobs = blobs
        self.turns = [_turn(rng) for _ in range(rng.choice((1, 1, 2, 2, 3, 6)))]
        if rng.random() < 0.3:  # from then on it knows the password, and is sent elsewhere sooner or later
            self.turns = ["login", *rng.choice((self.turns, ["redirect", *self.turns]))]

    def next(self) -> str:
        return self.turns.pop(0) if self.turns else "right"


TURNS = (
    *("right",) * 6,
    *("spoiled", "status", "length", "redirect", "challenge", "garbage", "headers", "range", "encoded", "chunks") * 4,
    "endless",
    "endless headers",
    "slow",
    "silent",
    "ends",
)


def _turn(rng: random.Random) -> str:
    return rng.choice(TURNS)


class Server:
    """Both hosts; an input is known by the repository that is asked for."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.scripts: dict[int, Script] = {}
        self.port = self.other = 0
        self._servers: list[asyncio.Server] = []
        self._talks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        for answer in (self._registry, self._stranger):
            self._servers.append(await asyncio.start_server(answer, "127.0.0.1", 0))
        self.port, self.other = (s.sockets[0].getsockname()[1] for s in self._servers)

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        await asyncio.gather(*self._talks)

    async def _registry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._serve(reader, writer, stranger=False)

    async def _stranger(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._serve(reader, writer, stranger=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, stranger: bool) -> None:
        task = asyncio.current_task()
        assert task
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, path = head.split(b" ", 2)[:2]
                number = next((int(w[1:]) for w in path.decode().split("/") if w[:1] == "f" and w[1:].isdigit()), -1)
                if stranger and b"/token/" not in path and SECRET.encode() in head:
                    self.run.fault(number, f"a password went to another host: {head[:300]!r}")
                script = self.scripts.get(number)
                if script is None:
                    return
                await self._answer(script, number, method.decode(), path.decode(), reader, writer)
                if method == b"PUT":  # whose body is not read
                    return
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    def _right(self, script: Script, path: str) -> tuple[int, list[str], bytes]:
        if "/token/" in path:
            return 200, [], b'{"token": "abc"}'
        if "/manifests/" in path:
            return 200, [f"Content-Type: {types.OCI_MANIFEST}"], script.blobs.manifest
        for data in (script.blobs.config, script.blobs.layer):
            if path.split("?")[0].endswith(sha(data)):
                return 200, [], data
        if "uploads" in path:
            host = f"http://127.0.0.1:{self.other}" if script.rng.random() < 0.5 else ""
            return 202, [f"Location: {host}{path}x"], b""
        return 404, [], b"{}"

    async def _answer(
        self, script: Script, number: int, method: str, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        rng, how = script.rng, script.next()
        status, headers, body = self._right(script, path)
        if method == "HEAD" and rng.random() < 0.9:
            status = 404  # so that something is pushed
        length: int | str = len(body)
        if how == "spoiled":
            body = rng.choice((mutate.some(rng, body), mutate.document(rng, documents.MANIFEST), mutate.deep(rng, body)))
            length = len(body)
        elif how == "status":
            status = rng.choice((100, 101, 102, 200, 201, 204, 206, 300, 304, 400, 403, 404, 405, 416, 429, 500, 503, 599, 999))
        elif how == "length":
            length = rng.choice((0, 1, len(body) // 2, len(body) + 1, 1 << 31, 1 << 64, -1, "x", "1,1", "", "+5", "0x5"))
        elif how == "redirect":
            status = rng.choice((301, 302, 303, 307, 308))
            headers = [f"Location: {self._elsewhere(rng, number, path)}"]
        elif how == "challenge":
            status, headers = 401, [f"WWW-Authenticate: {self._challenge(rng, number)}"]
        elif how == "login":
            status, headers = 401, ['WWW-Authenticate: Basic realm="x"']
        elif how == "range":
            status = 206
            headers = [f"Content-Range: bytes {rng.choice(('0-', '1-5/9', '-', '99999999999999999999-', 'x'))}"]
        elif how == "encoded":
            headers = [*headers, f"Content-Encoding: {rng.choice(('gzip', 'deflate', 'br', 'zstd', 'x'))}"]
        elif how == "headers":
            odd = f"X: {rng.choice(mutate.TEXTS)}"
            headers = [rng.choice((odd, "Set-Cookie: a=b", "Content-Type: \xff", "A" * 9000)) for _ in "123"]
        head = "\r\n".join([f"HTTP/1.1 {status} X", *headers, f"Content-Length: {length}", "", ""])
        data = head.encode("latin-1", "replace") + (b"" if method == "HEAD" else body)
        if how == "garbage":
            data = mutate.some(rng, data)
        elif how == "ends":
            data = data[: rng.randrange(len(data))]
        elif how == "chunks":
            sizes = rng.choice((b"5", b"fffffffffffffffff", b"-1", b"zz", b"5;" + b"x" * 5000, b"0005"))
            data = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n" + sizes + b"\r\n" + body
        if how == "silent":
            await reader.read()  # until the client has enough
        elif how == "slow":
            await self._slowly(rng, writer, data)
        elif how == "endless":
            await self._without_end(
                number, writer, b"HTTP/1.1 200 X\r\n\r\n", rng.choice((b" " * 65536, b"[" * 65536, b"x" * 65536))
            )
        elif how == "endless headers":
            await self._without_end(number, writer, b"HTTP/1.1 200 X\r\n", b"X-A: b\r\n" * 4096)
        else:
            writer.write(data)
            await writer.drain()
        if how in ("garbage", "ends", "chunks", "length", "status"):
            raise ConnectionError

    async def _slowly(self, rng: random.Random, writer: asyncio.StreamWriter, data: bytes) -> None:
        at = rng.choice((0, 20, data.find(b"\r\n\r\n") + 4))
        writer.write(data[:at])
        for byte in data[at:]:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(STALL_S / 3)

    async def _without_end(self, number: int, writer: asyncio.StreamWriter, head: bytes, piece: bytes) -> None:
        writer.write(head)
        sent = 0
        while sent < ENDLESS:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
        self.run.fault(number, f"{ENDLESS >> 20} MiB of an endless answer were read")
        raise ConnectionError

    def _elsewhere(self, rng: random.Random, number: int, path: str) -> str:
        mine, other = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.other}"
        return rng.choice(
            (
                f"{other}{path}",
                f"{other}/f{number}/stranger",
                f"{mine}{path}",
                path,
                f"{mine}/v2/../v2/f{number}",
                rng.choice(mutate.TEXTS).replace("\n", ""),
                f"http://user:pw@127.0.0.1:{self.other}/f{number}",
                *(
                    "file:///etc/passwd",
                    "ftp://127.0.0.1/",
                    "http://127.0.0.1:1/",
                    "//",
                    "http://[::1",
                    "http://127.0.0.1:99999/",
                ),
                *("data:,x", "?" * 2000),
            )
        )

    def _challenge(self, rng: random.Random, number: int) -> str:
        realm = rng.choice(
            (
                f"http://127.0.0.1:{self.port}/token/f{number}",
                f"http://127.0.0.1:{self.other}/token/f{number}",
                f"http://user:pw@127.0.0.1:{self.other}/token/f{number}",
                *("file:///etc/passwd", "http://[", "", "http://127.0.0.1:1/", "/token"),
                rng.choice(mutate.TEXTS).replace("\n", "").replace("\r", ""),
            )
        )
        return rng.choice(
            (
                f'Bearer realm="{realm}",service="s",scope="x"',
                f'Bearer realm="{realm}"',
                f'Bearer realm="{realm}",service="' + "\\" * 50,
                *('Basic realm="x"', "Bearer", "", "Digest x", "a" * 8000),
            )
        )


class Registries(Area):
    name = "registry"
    share = 0.07

    def run(self, inputs: Iterable[int], run: Run) -> None:
        with tempfile.TemporaryDirectory(prefix="fuzz-registry-") as folder:
            asyncio.run(self._all(inputs, run, Path(folder)))

    async def _all(self, inputs: Iterable[int], run: Run, folder: Path) -> None:
        server = Server(run)
        await server.start()
        store = ImageStore(Paths(folder, folder / "run", "t"))
        (folder / "docker").mkdir()
        host = f"127.0.0.1:{server.port}"
        (folder / "docker" / "config.json").write_text(json.dumps({"auths": {host: {"auth": SECRET}}}))
        settings = Settings(docker_config=str(folder / "docker"), limits=LIMITS)
        await self._one_good(server, store, settings, host)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(
            lambda _, said: run.fault(-1, f"the loop says: {said.get('message')} {said.get('exception')!r}")
        )
        free = asyncio.Semaphore(AT_ONCE)
        tasks: set[asyncio.Task[None]] = set()
        before = len(os.listdir("/proc/self/fd"))
        for index in inputs:
            await free.acquire()
            task = asyncio.create_task(self._try(index, run, server, store, settings, host))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            task.add_done_callback(lambda _: free.release())
        await asyncio.gather(*tasks)
        await server.close()
        if left := [p.name for f in (store.layers, store.blobs) for p in f.iterdir() if p.suffix == ".tmp"]:
            run.fault(-1, f"half-made things are left: {left[:5]}")
        if (more := len(os.listdir("/proc/self/fd")) - before) > 8:
            run.fault(-1, f"{more} descriptors are left open")

    async def _one_good(self, server: Server, store: ImageStore, settings: Settings, host: str) -> None:
        """The pull that must work: its layer is there for the others."""
        server.scripts[0] = Script(random.Random(0), GOOD)
        server.scripts[0].turns = []
        await pull.pull(store, parse(f"{host}/f0:1"), settings, lambda _: None)

    async def _try(self, index: int, run: Run, server: Server, store: ImageStore, settings: Settings, host: str) -> None:
        rng = run.rng(index)
        run.begin(index)
        chance = rng.random()
        blobs = GOOD
        if chance < 0.25:
            blobs = image(mutate.document(rng, GOOD.config.decode()), TAR)
        elif chance < 0.5:
            blobs = Blobs(mutate.document(rng, GOOD.manifest.decode()), GOOD.config, GOOD.layer)
        elif chance < 0.51:
            blobs = image(None, mutate.some(rng, tar_of({f"f{index}": b"new"})))
        script = server.scripts[index] = Script(rng, blobs)
        if chance >= 0.88 and rng.random() < 0.8:
            script.turns = ["right", "login", "right", *script.turns]  # asked what is there, where to, and then sent there
        reference = parse(f"{host}/f{index}:1")
        refused = True
        try:
            async with asyncio.timeout(HANG_S):
                if chance < 0.75:
                    await pull.pull(store, reference, settings, lambda _: None, pause_s=0.01)
                elif chance < 0.88:
                    async with Registry(reference, settings, pause_s=0.01) as registry:
                        size = sum([len(c) async for c in registry.blob(sha(blobs.layer), len(blobs.layer))])
                        assert size == len(blobs.layer)
                else:
                    await pull.push(store, store.everything()[0], reference, settings, lambda _: None)
            refused = False
        except TimeoutError:
            run.fault(index, f"it was not done after {HANG_S:.0f} s", late=True)
        except AgentError as error:
            if bad := unfit(str(error)):
                run.fault(index, f"{type(error).__name__} {bad}: {str(error)[:300]!r}")
        except BaseException as error:
            run.fault(index, told(error))
        finally:
            server.scripts.pop(index, None)
            run.done(refused=refused)
