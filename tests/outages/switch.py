"""Blue-green there and back under requests by ingress: what is lost, and for how long both versions answer."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from tests.asking import asking
from tests.conftest import Stack, eventually
from tests.kernel.test_canary_requests import LOAD

WEB = """
services:
  web:
    image: busybox
    command: sh -c "mkdir -p /w; echo VERSION > /w/a; exec httpd -f -p 8080 -h /w"
    expose: [8080]
    stop_signal: SIGKILL
    pre_stop: [{command: sleep 1}]
    deploy: {replicas: 2}
    x-ingress: [{host: canary.internal, port: 8080, tls: "off"}]
    x-update: {strategy: blue-green, hold: 1h}
"""
APART_S = 3.0
"""Two answers of the other version that are further apart belong to two switches."""
MOMENTS = f"""
moments.sort()
turns = [moments[n][0] for n in range(1, len(moments)) if moments[n][1] != moments[n - 1][1]]
switches = []
for at in turns:
    if not switches or at - switches[-1][1] > {APART_S}:
        switches.append([at, at])
    switches[-1][1] = at
print(json.dumps({{"seen": seen, "switches_s": [last - first for first, last in switches]}}))
"""


def measured(stack: Stack, rate: float) -> dict[str, Any]:
    """*seen* counts answers by what they were, *switches_s* has for each switch the seconds in which both versions answered."""
    program = (
        LOAD.replace("EACH", str(8 / rate)).replace("/cgi-bin/a", "/a").replace("seen, end =", "moments = []; seen, end =")
    )
    program = program.replace("seen[text if", "moments.append((time.monotonic(), text)); seen[text if")
    program = program.replace("print(json.dumps(seen))", MOMENTS)
    stack.pystack("ingress", "up")
    stack.up(WEB.replace("VERSION", "one"))
    found: dict[str, Any]
    with asking(stack.pystack, program) as found:
        stack.write(WEB.replace("VERSION", "two"))
        up = threading.Thread(target=lambda: stack.run("up", check=False))
        up.start()
        eventually(lambda: _holds(stack), 60)
        time.sleep(2 * APART_S)  # so that the way back is a switch of its own
        stack.pystack("rollout", "abort", "-p", stack.name)
        up.join()
    return found


def _holds(stack: Stack) -> None:
    done = stack.pystack("rollout", "status", "-p", stack.name, "--format", "json")
    assert "100%" in json.dumps(json.loads(done.stdout)), done.stdout
