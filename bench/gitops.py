"""From a push to the container that runs it: by a signed webhook, and by looking every ten seconds."""

from __future__ import annotations

import hashlib
import hmac
import subprocess
import sys
import time
from pathlib import Path

from bench.environment import LAB, Environment, environment
from bench.rows import Row, row, size
from orchestrator.lab import lab as labs

GOAL_WEBHOOK_S, GOAL_POLL_S, ROUNDS, POLL_S = 3.0, 13.0, size(3, 1), size(10, 1)
FILE = "services: {{web: {{image: busybox, command: [sleep, '{}'], stop_grace_period: 0s}}}}\n"


def measure() -> dict[str, Row]:
    """Seconds from a push to the new container: the slowest by webhook, and the slowest by polling."""
    with environment() as made:
        hooked = _pushes(made, "hooked", "--interval", "1h", "--webhook", "127.0.0.1:9099", hook=True)
        polled = _pushes(made, "polled", "--interval", f"{POLL_S}s")
    # the slowest: a push waits for anything from nothing to the whole interval
    return {"push_webhook": row(max(hooked), GOAL_WEBHOOK_S), "push_poll_10s": row(max(polled), GOAL_POLL_S)}


def _pushes(made: Environment, name: str, *options: str, hook: bool = False) -> list[float]:
    folder = made.root / name
    bare, copy, secret = folder / "origin.git", folder / "copy", folder / "secret"
    copy.mkdir(parents=True)
    secret.write_text("said in confidence")
    for command in (["init", "-q", "-b", "main", "--bare", str(bare)], ["init", "-q", "-b", "main", str(copy)]):
        subprocess.run(["git", *command], check=True)
    _push(copy, bare, 1000)
    more = ["--webhook-secret", str(secret)] if hook else []
    made.pystack("gitops", "add", str(bare), "--name", name, *options, *more)
    took = []
    for number in range(ROUNDS):
        begin = time.perf_counter()
        _push(copy, bare, 2000 + number)
        if hook:
            signature = hmac.new(secret.read_bytes(), b"{}", hashlib.sha256).hexdigest()
            made.on_node(
                "curl",
                "-sf",
                "-X",
                "POST",
                "-d",
                "{}",
                "-H",
                f"X-Hub-Signature-256: sha256={signature}",
                f"http://127.0.0.1:9099/{name}",
            )
        while not _runs(str(2000 + number)):
            time.sleep(0.05)
        took.append(time.perf_counter() - begin)
    made.pystack("gitops", "rm", name)
    made.pystack("down", "-p", name)
    return took


def _push(copy: Path, bare: Path, number: int) -> None:
    (copy / "compose.yml").write_text(FILE.format(number))
    who = ("-c", "user.name=bench", "-c", "user.email=bench@example.org")
    for words in (("add", "-A"), (*who, "commit", "-q", "-m", str(number)), ("push", "-q", str(bare), "HEAD:main")):
        subprocess.run(["git", *words], cwd=copy, check=True)


def _runs(word: str) -> bool:
    """Whether a container runs with that argument, seen in its process."""
    command = [*labs.enter(labs.find(LAB), "n1"), "pgrep", "-f", f"^sleep {word}$"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["gitops", *sys.argv[1:]]))
