"""What BuildKit's clients send: messages, options of builds, lists of files."""

from __future__ import annotations

import random
from collections.abc import Iterable

from agent.build import cache_option, outputs, remote_cache
from agent.buildkit import attributes, filesync, messages, wire
from agent.errors import AgentError
from tests.fuzz import mutate
from tests.fuzz.area import Area, Run

OPTIONS = {
    "filename": "Dockerfile",
    "target": "a",
    "no-cache": "",
    "build-arg:A": "b",
    "label:x": "y",
    "context:more": "local:more",
    "platform": "linux/amd64",
    "shm-size": "1024",
    "ulimit": "nofile=1:2",
    "add-hosts": "a=1.2.3.4",
    "force-network-mode": "none",
    "source": "docker/dockerfile:1",
    "cache-from": "a/b:1,c",
    "cache-imports": '[{"Type":"registry","Attrs":{"ref":"a/b:1"}}]',
    "attest:provenance": "mode=max,disabled=false",
    "attest:sbom": "true",
}
STAT = messages.Stat(path="a/b", mode=0o644, size=5, mtime=1 << 60, xattrs={"user.a": b"b"})
WHOLE = messages.SolveRequest(
    ref="r",
    session="s",
    frontend="dockerfile.v0",
    attributes=OPTIONS,
    cache=messages.CacheOptions(exports=(messages.CacheEntry(type="inline"),)),
    exporters=(messages.CacheEntry(type="image", attributes={"name": "a,b", "push": "true"}),),
)
MESSAGES = (WHOLE, messages.Packet(stat=STAT), messages.ReturnRequest(error=messages.RpcStatus(code=1, message="x")))


CACHE = b'type=registry,ref=a/b:1,mode=max,"ignore-error=true"'
DOCUMENT = b'{"records":[{"key":"00","identity":"11","note":"RUN x","created":1.5,"digest":"sha256:00","size":5}]}'


def _one(rng: random.Random) -> None:
    good = rng.choice(MESSAGES)
    read = wire.decode(mutate.some(rng, wire.encode(good)), type(good))
    if isinstance(read, messages.SolveRequest):
        attributes.check(read.frontend, read.attributes)
        for one in read.exporters:
            outputs.checked(one.type, one.attributes)
    elif isinstance(read, messages.Packet) and read.stat:
        filesync.header(read.stat)
        filesync.unix_mode(read.stat.mode)
    given = dict(OPTIONS)
    for _ in range(rng.randrange(3)):
        given[rng.choice(list(OPTIONS))] = rng.choice(mutate.TEXTS)
    cache = read.cache if isinstance(read, messages.SolveRequest) else None
    attributes.options(given, (), cache)
    cache_option.option(mutate.some(rng, CACHE).decode(errors="replace"))
    remote_cache.read(mutate.some(rng, DOCUMENT), remote_cache.CONFIG, "a cache", 1 << 20)
    outputs.asked(mutate.some(rng, b'[{"Type":"local","Attrs":{"dest":"x"}}]').decode(errors="replace"))


class BuildKit(Area):
    name = "buildkit"
    share = 0.1

    def run(self, inputs: Iterable[int], run: Run) -> None:
        for index in inputs:
            rng = run.rng(index)
            run.judge(index, lambda rng=rng: _one(rng), (AgentError,))  # type: ignore[misc]

    def tidy(self) -> None:
        """Nothing is made."""
