"""What services use, added up of the counters of their tasks."""

from __future__ import annotations

from agent.contract.usage import Counters
from orchestrator.ui.usage import summed

GROUPS = {"s-web-1": "web", "s-web-2": "web", "s-db-1": "db"}


def test_tasks_of_a_service_are_added_up_by_their_own_clocks() -> None:
    before = {
        "s-web-1": Counters(at=10.0, cpu=0, memory=5, received=100),
        "s-web-2": Counters(at=500.0, cpu=2 * 10**9, memory=5, sent=50),
    }
    now = {
        "s-web-1": Counters(at=12.0, cpu=10**9, memory=7, received=300),
        "s-web-2": Counters(at=501.0, cpu=3 * 10**9, memory=8, sent=80),
        "s-db-1": Counters(at=7.0, cpu=10**12, memory=100, read=10**9),
    }
    found = summed(before, now, GROUPS)
    assert found["web"] == {"cpu": 1.5, "memory": 15.0, "received": 100.0, "sent": 30.0, "read": 0.0, "written": 0.0}
    assert (found["db"]["cpu"], found["db"]["memory"], found["db"]["read"]) == (0.0, 100.0, 0.0), "seen for the first time"


def test_a_container_that_began_again_is_no_negative_use() -> None:
    before = {"s-db-1": Counters(at=10.0, cpu=10**9, received=1000)}
    now = {"s-db-1": Counters(at=12.0, cpu=10**6, received=10, memory=3)}
    assert summed(before, now, {"s-db-1": "db"})["db"] == dict.fromkeys(("cpu", "received", "sent", "read", "written"), 0.0) | {
        "memory": 3.0
    }
    assert summed({}, {}, GROUPS).keys() == {"web", "db"}, "a service without a task that runs is drawn at nothing"
