"""Canaries that fail, are slow, or crash under load: ingress sees it, the first step shows it, the old version stays whole."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from tests.asking import asking
from tests.conftest import Pystack, Stack, cluster_of, eventually

HOST = "canary.internal"
WEB = """
services:
  web:
    image: busybox
    command:
      - sh
      - -c
      - >-
        mkdir -p /w/cgi-bin; printf '#!/bin/sh\\nWORK\\necho; echo VERSION' > /w/cgi-bin/a; chmod +x /w/cgi-bin/a;
        LIFE httpd -f -p 8080 -h /w; exit 3
    expose: [8080]
    stop_signal: SIGKILL
    pre_stop: [{command: sleep 1}]
    deploy: {replicas: 4}
    x-ingress: [{host: canary.internal, port: 8080, tls: "off"}]
    x-update:
      strategy: canary
      steps: [{weight: 10%, hold: HOLD}, {weight: 50%, hold: 2s}]
      abort_on: {error_rate: 1%, p99: 500ms}
"""
LOAD = """
import collections, http.client, json, sys, threading, time
seen, end = collections.Counter(), threading.Event()
def ask(node):
    due = time.monotonic()
    while not end.is_set():
        due += EACH
        time.sleep(max(0, due - time.monotonic()))
        try:
            one = http.client.HTTPConnection(node, 80, timeout=20)
            one.request("GET", "/cgi-bin/a", headers={"Host": "canary.internal"})
            reply = one.getresponse()
            text = reply.read().decode().strip()
            seen[text if reply.status == 200 else str(reply.status)] += 1
            one.close()
        except (OSError, http.client.HTTPException) as error:
            seen[repr(error)] += 1
workers = [threading.Thread(target=ask, args=(f"10.99.0.{n % 2 + 1}",)) for n in range(8)]
for worker in workers: worker.start()
print("on", flush=True)
sys.stdin.readline()
end.set()
for worker in workers: worker.join()
print(json.dumps(seen))
"""


def web(version: str, *, work: str = "true", life: str = "exec", hold: str = "25s") -> str:
    return WEB.replace("VERSION", version).replace("WORK", work).replace("LIFE", life).replace("HOLD", hold)


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(2) as pystack:
        pystack("ingress", "up")
        yield pystack


def at_rate(lab: Pystack, rate: int) -> AbstractContextManager[dict[str, int]]:
    """Meanwhile *rate* requests a second come from outside; afterwards, what they were answered."""
    return asking(lab, LOAD.replace("EACH", str(8 / rate)))


CHANCE = "$$(od -An -N1 -tu1 /dev/urandom)"
BAD = {
    "one in ten fails": (f'[ $$(({CHANCE} %% 10)) = 0 ] && echo "Status: 500 no"', "exec", "requests failed"),
    "600 ms late": ("sleep 0.6", "exec", "the p99 of"),
    "it crashes after a while": ("true", "timeout 12", "exited with 3"),
}


@pytest.mark.long
@pytest.mark.parametrize(("work", "life", "why"), BAD.values(), ids=BAD)
def test_what_is_wrong_stops_at_the_first_step(stack: Stack, lab: Pystack, work: str, life: str, why: str) -> None:
    stack.up(web("one"))
    before = stack.ps()
    with at_rate(lab, 60) as seen:
        bad = stack.up(web("two", work=work, life=life), check=False)
    assert bad.returncode == 1
    assert "the update is taken back at 10%" in bad.stderr
    assert why in bad.stderr
    assert {n: (t["definition"], t["id"]) for n, t in stack.ps().items()} == {
        n: (t["definition"], t["id"]) for n, t in before.items()
    }
    total = sum(seen.values())
    print(f"{why}: of {total} requests {total - seen['one']} went to the new version, or failed: {seen}")
    assert total - seen["one"] <= total * 0.2, seen  # the step's share of ten, with what chance may add
    assert set(seen) <= {"one", "two", "500", "502"}, seen
    assert ("500" in seen) == (why == "requests failed"), seen
    assert "two" in seen


def test_a_good_one_gets_its_share_of_ingress_and_stays(stack: Stack, lab: Pystack) -> None:
    stack.up(web("one"))
    stack.write(web("two", hold="60s"))
    words = [sys.executable, "-m", "orchestrator", "-f", str(stack.file), "up", "-p", stack.name]
    with subprocess.Popen(words, env=lab.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as up:

        def at_the_step() -> None:
            done = lab("rollout", "status", "-p", stack.name, "--format", "json", check=False)
            assert "step 1 of 2, 10%" in json.loads(done.stdout)[0]["phase"]

        eventually(at_the_step, 40)
        ask = f"for n in $(seq 300); do curl -s -m 5 -H 'Host: {HOST}' http://10.99.0.1/cgi-bin/a; done"
        found = lab.on("outside", "sh", "-c", ask).split()
        assert 5 <= found.count("two") <= 70  # 30, with a deviation of 5
        assert found.count("one") + found.count("two") == 300
        lab("rollout", "promote", "-p", stack.name)
        assert up.wait(60) == 0
    assert lab.on("outside", "sh", "-c", ask).split().count("two") == 300


def test_limits_that_nobody_could_see(stack: Stack, lab: Pystack) -> None:
    text = web("one").replace('    x-ingress: [{host: canary.internal, port: 8080, tls: "off"}]\n', "")
    stack.write(text)
    refused = stack.run("plan", check=False)
    assert refused.returncode == 1
    line = 1 + next(n for n, words in enumerate(text.splitlines()) if "abort_on" in words)
    assert f":{line}:" in refused.stderr
    assert "nobody sees the requests of a service without x-ingress" in refused.stderr
