"""A three-member etcd, and a PostgreSQL primary with two replicas, through updates, drained nodes and power cuts, while a
client writes without a pause. What was acknowledged is asked for at the end, of every member, by the database's own means."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from tests import postgres
from tests.conftest import Pystack, Stack, eventually
from tests.images import archive, busybox_rootfs, files_of, tar_of, with_libraries
from tests.outages.sidecar import Reading

EXAMPLES = Path(__file__).parents[2] / "examples" / "stacks"
MEMBERS = (1, 2, 3)
RATE = 20.0
SETTLED_S = 180.0
"""How long a set may take to be whole again."""


class Database:
    """A set of three, as its example has it; what it must be asked to know whether it is whole."""

    service = ""
    example = ""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def exec(self, member: int, *words: str, check: bool = True) -> str:
        """What a command in the container of *member* prints."""
        return self.stack.run("exec", "-T", "--index", str(member), self.service, *words, check=check).stdout

    def load_image(self) -> None:
        """Make its image of this host's programs, and load it."""
        raise NotImplementedError

    def begin(self) -> None:
        """Prepare it for the client's writes."""

    def check_whole(self) -> None:
        """Raises AssertionError while a member is missing or behind."""
        raise NotImplementedError

    def numbers(self, member: int) -> set[int]:
        """The writes that *member* has."""
        raise NotImplementedError

    def problems(self) -> list[str]:
        """What its own checks find."""
        raise NotImplementedError

    def writes_without(self, member: int) -> bool:
        """Whether writes can be acknowledged while *member* is away."""
        raise NotImplementedError


class Etcd(Database):
    """Any two of three are a quorum."""

    service = example = "etcd"
    _all = "--endpoints=http://etcd-1:2379,http://etcd-2:2379,http://etcd-3:2379"

    def load_image(self) -> None:
        programs = [shutil.which(name) for name in ("etcd", "etcdctl")]
        assert all(programs), "etcd is not installed: run `make setup`"
        files = files_of(with_libraries(Path(p) for p in programs if p))
        path = self.stack.directory / "etcd.tar"
        archive(path, [busybox_rootfs(), tar_of(files)], name="docker.io/example/etcd:bookworm")
        self.stack.pystack("image", "load", "-i", str(path))

    def check_whole(self) -> None:
        said = self.stack.run(
            "exec", "-T", "--index", "1", "etcd", "etcdctl", self._all, "endpoint", "status", "-w", "json", check=False
        )
        rows = json.loads(said.stdout or "[]") if said.returncode == 0 else []
        assert len(rows) == len(MEMBERS), said
        assert len({row["Status"]["leader"] for row in rows}) == 1, rows

    def numbers(self, member: int) -> set[int]:
        said = self.exec(member, "etcdctl", "get", "--prefix", "w/", "--consistency=s").split()
        pairs = list(zip(said[::2], said[1::2], strict=True))
        assert all(int(key.removeprefix("w/")) == int(value) for key, value in pairs)
        return {int(value) for _, value in pairs}

    def problems(self) -> list[str]:
        rows = json.loads(self.exec(1, "etcdctl", self._all, "endpoint", "hashkv", "-w", "json"))
        hashes = {(row["HashKV"]["hash"], row["HashKV"]["compact_revision"]) for row in rows}
        members = json.loads(self.exec(1, "etcdctl", "member", "list", "-w", "json"))["members"]
        names = sorted(m["name"] for m in members)
        return [f"hashes differ: {rows}"] * (len(hashes) != 1) + [f"members: {names}"] * (
            names != [f"etcd-{n}" for n in MEMBERS]
        )

    def writes_without(self, member: int) -> bool:
        return True


class Postgres(Database):
    """The first is the primary; one of the other two has each write that is acknowledged."""

    service, example = "db", "postgres"

    def load_image(self) -> None:
        path = postgres.image(self.stack.directory / "postgres.tar", "docker.io/example/postgres:bookworm")
        self.stack.pystack("image", "load", "-i", str(path), timeout=300)
        build = self.stack.directory / "build"
        build.mkdir()
        (build / "password").write_text("a long sentence")
        os.environ["PGPASSWORD"] = "a long sentence"

    def sql(self, member: int, text: str, check: bool = True) -> str:
        """What psql in the container of *member* prints."""
        return self.stack.run(
            "exec", "-T", "--user", "postgres", "--index", str(member), "db", "psql", "-h", "/tmp", "-XAtc", text, check=check
        ).stdout.strip()

    def begin(self) -> None:
        self.sql(1, "CREATE EXTENSION amcheck; CREATE TABLE line (number bigint PRIMARY KEY)")

    def check_whole(self) -> None:
        query = (
            "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn >= sent_lsn ORDER BY 1"
        )
        assert self.sql(1, query, check=False).split() == ["db-2", "db-3"]

    def numbers(self, member: int) -> set[int]:
        return {int(n) for n in self.sql(member, "SELECT number FROM line").split()}

    def problems(self) -> list[str]:
        words = ("pg_amcheck", "-h", "/tmp", "--all", "--heapallindexed")
        done = self.stack.run("exec", "-T", "--user", "postgres", "--index", "1", "db", *words, check=False)
        found = [f"pg_amcheck: {done.stdout}{done.stderr}"] if done.returncode else []
        for member in MEMBERS:
            if (failures := self.sql(member, "SELECT coalesce(sum(checksum_failures), 0) FROM pg_stat_database")) != "0":
                found.append(f"db-{member}: {failures} pages with a wrong checksum")
            if (role := self.sql(member, "SELECT pg_is_in_recovery()")) != ("f" if member == 1 else "t"):
                found.append(f"db-{member}: in recovery: {role}")
        return found

    def writes_without(self, member: int) -> bool:
        return member != 1


SETS: dict[str, type[Database]] = {"etcd": Etcd, "postgres": Postgres}


class Writing(Reading):
    """The client, on the machine outside."""

    def __init__(self, lab: Pystack, kind: str, addresses: list[str]) -> None:
        program = str(Path(__file__).with_name("set_clients.py"))
        words = ["nsenter", "-t", lab.pid("outside"), "-n", sys.executable, program, kind, str(RATE), *addresses]
        super().__init__(words, stdin=subprocess.PIPE)

    def acknowledged(self) -> None:
        """Wait for a write that begins from now on, and is acknowledged."""
        now = time.time()

        def good() -> None:
            assert any(not r["problem"] and r["begun"] > now for r in self.rows[-100:]), self.rows[-3:]

        eventually(good, 60)

    def stop(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self._reader.join(60)
        self.process.wait()


@dataclass
class Seen:
    """*pauses_s* has the longest time without an acknowledged write of each change, by kind; *problems* what should not be."""

    writes: int = 0
    acknowledged: int = 0
    pauses_s: dict[str, list[float]] = field(default_factory=dict)
    during: Counter[str] = field(default_factory=Counter)
    """Writes that were acknowledged while changes of a kind went on."""
    lost: dict[int, list[int]] = field(default_factory=dict)
    """Acknowledged writes that a member does not have."""
    problems: list[str] = field(default_factory=list)


class Trial:
    """One set on a lab of four nodes, under writes."""

    def __init__(self, stack: Stack, kind: str) -> None:
        self.stack, self.lab, self.database = stack, stack.pystack, SETS[kind](stack)
        self.kind = kind
        self.changes: list[tuple[str, float, float]] = []
        self.problems: list[str] = []
        self._text = (EXAMPLES / self.database.example / "stack.yml").read_text()
        self.writing: Writing

    def run(self, updates: int, drains: int, losses: int) -> Seen:
        """So many of each, and what was seen."""
        self.database.load_image()
        self._up(0)
        self._whole()
        self.database.begin()
        self._addresses = {name: row["addresses"] for name, row in self.stack.ps().items()}
        self.writing = Writing(self.lab, self.kind, [f"10.99.0.{n}" for n in (1, 2, 3, 4)])
        try:
            self.writing.acknowledged()
            for number in range(updates):
                self._change("update", partial(self._up, number + 1))
            for number in range(drains):
                self._change("drain", partial(self._drain, MEMBERS[number % 3]))
            for number in range(losses):
                self._change("loss", partial(self._lose, MEMBERS[number % 3]))
        finally:
            self.writing.stop()
        return self._judged()

    def _up(self, number: int) -> None:
        """An update of every member."""
        document = yaml.safe_load(self._text)
        document["services"][self.database.service]["labels"] = {"number": str(number)}
        self.stack.write(yaml.safe_dump(document))
        self.lab("-f", str(self.stack.file), "up", "-p", self.stack.name, timeout=300)

    def _change(self, what: str, work: Callable[[], object]) -> None:
        began = time.time()
        work()
        self._whole()
        self.writing.acknowledged()
        self.changes.append((what, began, time.time()))
        print(f"  {what} {sum(c[0] == what for c in self.changes)}: {time.time() - began:.1f} s", file=sys.stderr, flush=True)
        if (addresses := {name: row["addresses"] for name, row in self.stack.ps().items()}) != self._addresses:
            self.problems.append(f"after {what}: addresses were {self._addresses}, and are {addresses}")

    def _whole(self) -> None:
        """Wait until each member is healthy, and the database says that it is whole."""

        def healthy() -> None:
            rows = json.loads(self.stack.run("ps", "--format", "json", check=False).stdout or "[]")
            assert [(r["state"], r["health"]) for r in rows] == [("running", "healthy")] * 3, rows
            self.database.check_whole()

        eventually(healthy, SETTLED_S)

    def _node(self, member: int) -> str:
        return str(self.stack.ps()[f"{self.database.service}-{member}"]["node"])

    def _drain(self, member: int) -> None:
        """Its replica and volume go to the node that is free."""
        node = self._node(member)
        self.lab("node", "drain", node, timeout=300)
        if self._node(member) == node:
            self.problems.append(f"{self.database.service}-{member} is on {node}, which is drained")
        self.lab("node", "activate", node)

    def _lose(self, member: int) -> None:
        """A power cut of its node, which is back once writes went on without it."""
        node = self._node(member)
        self.lab("lab", "fault", "--name", self.lab.lab, "crash", node)
        if self.database.writes_without(member):
            self.writing.acknowledged()
        else:
            time.sleep(10)
        self.lab("lab", "fault", "--name", self.lab.lab, "boot", node)
        with suppress(AssertionError):  # n1 has the server: `ps` answers when it is back
            self.lab("node", "ls")

    def _judged(self) -> Seen:
        rows: list[dict[str, Any]] = self.writing.rows
        good = [r for r in rows if not r["problem"]]
        seen = Seen(writes=len(rows), acknowledged=len(good), problems=self.problems)
        for what, began, ended in self.changes:
            times = [began, *(r["ended"] for r in good if began <= r["ended"] <= ended), ended]
            seen.during[what] += len(times) - 2
            seen.pauses_s.setdefault(what, []).append(max(b - a for a, b in pairwise(times)))
        self._whole()
        for member in MEMBERS:
            seen.lost[member] = sorted({r["number"] for r in good} - self.database.numbers(member))
        seen.problems += self.database.problems()
        return seen


def measured(stack: Stack, kind: str, updates: int, drains: int, losses: int) -> Seen:
    """The set *kind* through so many changes."""
    return Trial(stack, kind).run(updates, drains, losses)
