"""What a daemon holds in memory while nobody asks for it: a library that one request in a thousand needs is imported there."""

from __future__ import annotations

import subprocess
import sys

import pytest

ON_DEMAND = (
    # placement: only large or entangled stacks
    ("numpy", "networkx", "ortools"),
    # clusters: nodes over SSH, an etcd, keys and certificates
    ("asyncssh", "etcd3", "grpc", "google.protobuf", "cryptography", "acme", "jwt"),
    # builds, layers and stack files, which processes of their own read
    ("h2", "zstandard", "isal", "tarfile", "yaml", "agent.buildkit"),
    # who watches it
    ("opentelemetry", "prometheus_client", "smtplib", "email.generator", "logging.handlers"),
    # what the command line has
    ("click", "watchfiles", "orchestrator.cli", "orchestrator.lab", "orchestrator.convert"),
    ("pyroute2", "cronsim", "multiprocessing", "unittest", "pydoc", "http.server"),
)


@pytest.mark.parametrize("daemon", ["orchestrator.embedded", "agent.daemon", "netplugins.dataplane.process"])
def test_a_daemon_starts_without_what_it_may_never_need(daemon: str) -> None:
    found = _loaded(daemon)
    assert daemon in found
    assert not sorted(name for names in ON_DEMAND for name in names if name in found)


def test_the_process_that_answers_dns_holds_no_http() -> None:
    found = _loaded("netplugins.dataplane.process")
    assert not {"aiohttp", "uvloop", "agent", "orchestrator", "sqlite3"} & found


def _loaded(module: str) -> set[str]:
    script = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-E", "-s", "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())
