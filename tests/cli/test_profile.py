"""What `pystack system profile` makes of folded stacks."""

from __future__ import annotations

from orchestrator.cli.profile import functions

FOLDED = """main (a.py:1);work (a.py:5);hash (b.py:2) 30
main (a.py:1);work (a.py:5) 10
main (a.py:1);Runner.run (asyncio/runners.py:118) 900
_bootstrap (threading.py:1);_worker (concurrent/futures/thread.py:81) 940
"""


def test_functions_have_their_share_of_the_time_in_which_somebody_worked() -> None:
    assert functions(FOLDED, 5) == [
        {"self": 75.0, "total": 75.0, "function": "hash (b.py:2)"},
        {"self": 25.0, "total": 100.0, "function": "work (a.py:5)"},
    ]
    assert len(functions(FOLDED, 1)) == 1


def test_one_that_only_waited_has_no_functions() -> None:
    assert functions("main (a.py:1);Runner.run (asyncio/runners.py:118) 900\n", 5) == []
    assert functions("", 5) == []
