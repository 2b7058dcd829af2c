"""Requests to the control plane's API, of a real server in a lab: what `up` would do, stacks, nodes, configs and secrets."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.server.api.stacks import UpRequest
from orchestrator.stackfile.load import Options, load
from tests.fuzz.api import Call, Requests

STACK = """
name: s
services:
  web:
    image: busybox
    command: [sleep, "1"]
    ports: ["8080:80"]
    networks: [front]
    depends_on: {db: {condition: service_healthy}}
    deploy: {replicas: 2, placement: {constraints: ["node.labels.zone == b"]}, resources: {reservations: {memory: 1m}}}
    healthcheck: {test: [CMD, "true"], interval: 1s}
  db: {image: busybox, volumes: ["data:/data"], networks: [front]}
networks: {front: {ipam: {config: [{subnet: 10.79.0.0/24}]}}}
volumes: {data: {}}
"""


def wish() -> Any:
    """What `up` sends for STACK."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stack.yml"
        file.write_text(STACK)
        loaded = load(Options(files=(str(file),)), {})
    return json.loads(msgspec.json.encode(UpRequest(stack=loaded.stack)).replace(folder.encode(), b"/stacks"))


CALLS: tuple[Call, ...] = (
    *(("POST", "/v1/plan", {}, wish()),) * 12,
    ("GET", "/v1/version", {}, None),
    ("GET", "/v1/stacks", {}, None),
    ("GET", "/v1/stacks/s", {}, None),
    ("GET", "/v1/stacks/s/tasks", {"all": "1"}, None),
    ("GET", "/v1/stacks/s/history", {"limit": "5"}, None),
    ("GET", "/v1/stacks/s/services/web/why", {"task": "web.1"}, None),
    ("~POST", "/v1/stacks/s/down", {}, {"volumes": False}),
    ("~POST", "/v1/stacks/s/stop", {}, {"services": ["web"], "timeout_s": 1.0}),
    ("~POST", "/v1/stacks/s/rm", {}, {"services": ["web"]}),
    ("POST", "/v1/stacks/s/plan", {}, {"revision": 1}),
    ("~POST", "/v1/stacks/s/rollback", {}, {"revision": 1}),
    ("POST", "/v1/stacks/s/oneoff", {}, {"service": "web", "name": "g", "container": {"image": "busybox"}}),
    ("~POST", "/v1/apply", {}, {"plan": {}, "stack": {}}),
    ("GET", "/v1/nodes", {}, None),
    ("GET", "/v1/nodes/n1", {}, None),
    *(("PATCH", "/v1/nodes/n1", {}, {"labels": [["a", "b"]], "unset": ["c"], "taints": ["k=v:NoSchedule"], "untaint": ["k"]}),)
    * 2,
    ("POST", "/v1/nodes/n1/taint", {}, {"taints": ["a=b:NoSchedule"], "untaint": ["a"]}),
    ("DELETE", "/v1/nodes/none", {"force": "1"}, None),
    ("GET", "/v1/configs", {}, None),
    *(("PUT", "/v1/configs/c", {"replace": "1"}, b"text"),) * 2,
    ("PUT", "/v1/secrets/s", {"replace": "1"}, b"text"),
    ("GET", "/v1/secrets/s", {}, None),
    ("DELETE", "/v1/configs/c", {}, None),
    ("GET", "/v1/rebalance", {}, None),
    ("POST", "/v1/volumes/v/move", {}, {"node": "n2"}),
    ("GET", "/v1/gitops", {}, None),
    ("GET", "/v1/gitops/none", {}, None),
    ("PUT", "/v1/gitops/none/sync", {}, None),
    ("GET", "/v1/nodes/n1/engine/containers/json", {"all": "1"}, None),
    ("GET", "/v1/nodes/local/engine/images/json", {}, None),
    ("~GET", "/v1/events", {}, None),
)


class Server(Requests):
    name = "server"
    share = 0.02
    calls = CALLS
    started = 0.0
    socket = "pystack.sock"
    longest = 70_000
