"""A node that gets another address, while its containers run and are talked to."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

pytestmark = [pytest.mark.long, pytest.mark.kernel]
FILE = """
services:
  web:
    image: busybox
    command: sh -c "mkdir /w; hostname > /w/index.html; exec httpd -f -p 80 -h /w"
    stop_signal: SIGKILL
    deploy: {mode: global}
    networks: [open, sealed]
networks: {open: {}, sealed: {driver_opts: {encrypted: ""}}}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(3) as pystack:
        yield pystack


def move(lab: Pystack, node: str, old: str, new: str) -> None:
    lab.on(
        node,
        "sh",
        "-c",
        f"ip address del {old}/24 dev eth0; ip address add {new}/24 dev eth0; ip route replace default via 10.99.0.254",
    )


def test_others_follow_a_node_to_its_new_address(lab: Pystack, stack: Stack) -> None:
    stack.up(FILE)
    before = {name: row["id"] for name, row in stack.ps().items()}

    def all_answer() -> None:
        goals = [(a, str(r["id"])[:12]) for r in stack.ps().values() for a in r["addresses"].values()]  # type: ignore[attr-defined]
        script = "; ".join(f"timeout 4 wget -qO- http://{address}/" for address, _ in goals)
        for index in ("1", "2", "3"):
            pages = stack.run("exec", "-T", "--index", index, "web", "sh", "-c", script, check=False).stdout.split()
            assert pages == [name for _, name in goals], f"from task {index}"

    all_answer()
    move(lab, "n2", "10.99.0.2", "10.99.0.77")
    refused = lab("node", "update", "n2", "--address", "root@10.99.0.3", check=False)
    assert refused.returncode == 1  # that is another host
    assert "host key" in refused.stderr
    said = lab("node", "update", "n2", "--address", "root@10.99.0.77").stdout
    assert said == "n2: ready at root@10.99.0.77, 10.99.0.77 for the others\n"
    eventually(all_answer, 60)
    assert {name: row["id"] for name, row in stack.ps().items()} == before
    assert lab("doctor", check=False).returncode == 0, lab("doctor", check=False).stdout
    move(lab, "n1", "10.99.0.1", "10.99.0.78")  # the server's own host: its nodes see whence it comes
    lab("lab", "fault", "--name", lab.lab, "kill", "n1", "server")

    def back() -> None:
        rows = {r["name"]: r for r in json.loads(lab("node", "ls", "--format", "json", check=False).stdout or "[]")}
        assert {r["state"] for r in rows.values()} == {"ready"}
        assert rows["n1"]["underlay"] == "10.99.0.78"
        all_answer()

    eventually(back, 60)
    assert {name: row["id"] for name, row in stack.ps().items()} == before
