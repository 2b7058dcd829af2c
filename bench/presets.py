"""What the start of a container costs under each hardening preset; writes its table in docs/limits.md."""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

from bench.environment import Environment
from bench.page import replace_section
from bench.rows import Row, row, size
from bench.up import bare_container
from orchestrator.cli.client import Client

ROUNDS = size(21, 1)
USERNS = {"UsernsMode": "auto"}
STRICT = {
    **USERNS,
    "ReadonlyRootfs": True,
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges", "seccomp=strict"],
    "PidsLimit": 1024,
    "Tmpfs": {"/tmp": "", "/run": "", "/var/tmp": ""},
}
PRESETS: dict[str, dict[str, Any]] = {"default": {}, "userns": USERNS, "strict": STRICT}
NAMES = {"default": "default", "userns": "`userns_mode: auto`", "strict": "`x-harden: strict`"}


def measure(environment: Environment) -> dict[str, Row]:
    """The life of `busybox true` without a network under each preset, by the engine's API, and by bare `runc run`, in turns.
    Writes docs/limits.md where all is measured in full."""
    took: dict[str, list[float]] = {name: [] for name in ("bare", *PRESETS)}
    client = Client()
    client.path = environment.environment["PYSTACK_HOST"].removeprefix("unix://")
    with bare_container(environment) as bare:
        for _ in range(ROUNDS):
            took["bare"].append(environment.on_node("bash", "-c", bare))
            for name, host in PRESETS.items():
                took[name].append(_life(client, {**host, "NetworkMode": "none"}))
    middle = {name: statistics.median(times) for name, times in took.items()}
    found = {f"start_{name}_vs_runc": row(middle[name], middle["bare"]) for name in PRESETS}
    if ROUNDS > 1:
        lines = ["| preset | ms | against bare `runc run` | against the default |", "|---|---|---|---|"]
        lines.append(f"| bare `runc run` | {1000 * middle['bare']:.0f} | | |")
        for name in PRESETS:
            bare_ratio, own = middle[name] / middle["bare"], middle[name] / middle["default"]
            lines.append(f"| {NAMES[name]} | {1000 * middle[name]:.0f} | {bare_ratio:.2f} | {own:.2f} |")
        replace_section("presets", "\n".join(lines))
    return found


def _life(client: Client, host: dict[str, Any]) -> float:
    """Seconds from the request for a container to the answer that it has ended."""
    begun = time.perf_counter()
    ident = client.engine("POST", "/containers/create", body={"Image": "busybox", "Cmd": ["true"], "HostConfig": host})["Id"]
    client.engine("POST", f"/containers/{ident}/start")
    client.engine("POST", f"/containers/{ident}/wait")
    took = time.perf_counter() - begun
    client.engine("DELETE", f"/containers/{ident}")
    return took


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["presets", *sys.argv[1:]]))
