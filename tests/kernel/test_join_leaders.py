"""A node that dials, and servers of which one leads: the next one has its link before it leads."""

from __future__ import annotations

import json
import time

import pytest

from tests.conftest import Stack, cluster_of, eventually
from tests.kernel.test_join import WEB, close_ssh, join, root_of, states, token

pytestmark = [pytest.mark.etcd, pytest.mark.long]


def test_the_next_leader_reaches_it_at_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    with cluster_of(4, servers=3) as lab:
        lab("node", "rm", "n4")
        close_ssh(lab, "n4")

        def text() -> str:
            """Servers that do not lead say where they are dialled, a moment later."""
            made = token(lab, "--label", "zone=far")
            assert made.count(":2377") == 3, made
            return made

        made = eventually(text, 20)
        # it is joined by the first server alone: of the others it learns
        one = f"{made.partition('@')[0]}@10.99.0.1:2377"

        def joined() -> None:
            done = join(lab, "n4", one, check=False)
            assert done.stdout == "n4\n", done.stderr

        eventually(joined, 20)  # a server that waits knows the authority a moment later

        def linked() -> None:
            assert states(lab).get("n4") == "ready"
            log = (root_of(lab, "n4") / "agent.log").read_text()
            assert {n for n in ("n1", "n2", "n3") if f"linked to the server {n} at" in log} == {"n1", "n2", "n3"}

        eventually(linked, 40)
        assert json.loads((root_of(lab, "n4") / "uplink.json").read_text())["servers"] == [
            f"10.99.0.{n}:2377" for n in (1, 2, 3)
        ]
        stack = Stack(lab, tmp_path_factory.mktemp("far"))
        stack.up(WEB)
        before = {name: row["id"] for name, row in stack.ps().items()}
        lab("lab", "fault", "--name", lab.lab, "crash", "leader")

        def back() -> None:
            assert states(lab).get("n4") == "ready"

        begun = time.monotonic()
        eventually(back, 60)
        print(f"ready at the next leader after {time.monotonic() - begun:.1f} s")
        eventually(lambda: _same({name: row["id"] for name, row in stack.ps().items()}, before), 30)
        assert stack.exec("web", "echo", "here") == "here\n"


def _same(found: object, wanted: object) -> None:
    assert found == wanted
