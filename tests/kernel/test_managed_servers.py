"""Three servers from three hosts with one command each: one machine is lost and replaced, then the quorum is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import Pystack, cluster_of, eventually

pytestmark = pytest.mark.long


class Hosts:
    """The machines of a lab as hosts of an instance of their own, beside the lab's."""

    def __init__(self, lab: Pystack) -> None:
        self.lab = lab
        self.servers: dict[str, subprocess.Popen[bytes]] = {}

    def root(self, host: str) -> str:
        return f"/var/lib/pystack-lab/{self.lab.lab}/{host}/own"

    def words(self, host: str, *command: str) -> list[str]:
        home = f"/var/lib/pystack-lab/{self.lab.lab}/{host}/home"
        own = ("env", "-u", "PYSTACK_HOST", f"HOME={home}", f"PYSTACK_ROOT={self.root(host)}")
        inside = ("lab", "exec", "--name", self.lab.lab, host, "--", *own)
        return [sys.executable, "-m", "orchestrator", *inside, sys.executable, "-m", "orchestrator", *command]

    def on(self, host: str, *command: str, fails: str = "") -> str:
        """What *command* of pystack says on *host*; with *fails*, how it is refused."""
        done = subprocess.run(self.words(host, *command), capture_output=True, text=True, check=False, timeout=240)
        assert (done.returncode != 0) == bool(fails), done.stderr
        assert fails in done.stderr
        return done.stdout

    def serve(self, host: str) -> None:
        self.servers[host] = subprocess.Popen(self.words(host, "server"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self, host: str) -> None:
        """As systemd stops it: etcd runs on."""
        self.lab.on(host, "pkill", "-TERM", "-f", "orchestrator server$")
        self.servers.pop(host).wait(60)

    def fault(self, what: str, host: str) -> None:
        self.lab("lab", "fault", "--name", self.lab.lab, what, host)
        if what == "crash" and host in self.servers:
            self.servers.pop(host).wait(60)

    def ask(self, *command: str) -> str:
        """What a client says that knows all servers."""
        asked = Pystack(self.lab.lab)
        places = ",".join(f"unix://{self.root(host)}/run/pystack.sock" for host in ("n1", "n2", "n3"))
        asked.environment = {**self.lab.environment, "PYSTACK_HOST": places}
        return asked(*command, timeout=120).stdout

    def states(self) -> dict[str, str]:
        return {row["name"]: row["state"] for row in json.loads(self.ask("server", "ls", "--format", "json"))}

    def address(self, host: str) -> str:
        return f"root@10.99.0.{host[1:]}"

    def join(self, host: str, by: str, *options: str) -> str:
        """*by* are the servers that there are, separated by blanks."""
        places = ",".join(f"unix://{self.root(one)}/run/pystack.sock" for one in by.split())
        said = self.on(host, "server", "join", places, "--advertise", self.address(host), *options)
        self.serve(host)
        return said


@contextmanager
def _running(hosts: Hosts) -> Iterator[Hosts]:
    try:
        yield hosts
    finally:
        for process in hosts.servers.values():
            process.terminate()
            process.wait(60)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if not shutil.which("etcd"):
        pytest.skip("etcd is not installed (etcd-server)")
    with cluster_of(3) as lab, _running(Hosts(lab)) as made:
        yield made


def test_three_servers_lose_one_machine_and_then_their_quorum(hosts: Hosts) -> None:
    hosts.on("n1", "server", "init", "--advertise", hosts.address("n1"))
    hosts.serve("n1")
    eventually(lambda: hosts.ask("server", "ls"), 60)
    assert "n2 is one of 2 servers: n1, n2" in hosts.join("n2", "n1")
    assert "n3 is one of 3 servers: n1, n2, n3" in hosts.join("n3", "n1 n2")
    all_ready = dict.fromkeys(("n1", "n2", "n3"), "ready")
    eventually(lambda: _check(hosts.states() == all_ready), 60)
    hosts.on("n2", "server", "join", f"unix://{hosts.root('n1')}/run/pystack.sock", "--advertise", "root@h", fails="already")
    hosts.fault("crash", "n1")
    eventually(lambda: _check(hosts.states() == {**all_ready, "n1": "down"}), 60)
    hosts.ask("server", "rm", "n1")
    assert hosts.states() == {"n2": "ready", "n3": "ready"}
    hosts.fault("boot", "n1")
    hosts.join("n1", "n2 n3", "--replace")
    eventually(lambda: _check(hosts.states() == all_ready), 60)

    hosts.fault("crash", "n1")
    hosts.fault("crash", "n2")
    eventually(lambda: hosts.on("n3", "server", "ls", fails="`pystack store recover --force-new`"), 90)
    hosts.on("n3", "store", "recover", "--force-new", "--yes", fails="this host's server runs")
    hosts.stop("n3")
    said = hosts.on("n3", "store", "recover", "--force-new", "--yes")
    assert "What the others acknowledged after that is lost." in said
    assert "Not to be asked, and to be kept off from now on: n" in said
    hosts.serve("n3")
    eventually(lambda: _check(hosts.states() == {"n3": "ready"}), 60)
    for host in ("n1", "n2"):
        hosts.fault("boot", host)
        hosts.join(host, "n3 n1" if host == "n2" else "n3", "--replace")
    eventually(lambda: _check(hosts.states() == all_ready), 60)


def _check(holds: bool) -> None:
    assert holds
