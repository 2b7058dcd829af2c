"""A service of Docker's clients is read as a stack file's would be."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import RefusedError
from orchestrator.server.records import StackRecord
from orchestrator.swarm import objects, specs

SPEC: dict[str, Any] = {
    "Name": "shop_web",
    "Labels": {"com.docker.stack.namespace": "shop", "com.docker.stack.image": "nginx:1", "tier": "front"},
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "nginx:1@sha256:" + "0" * 64,
            "Labels": {"com.docker.stack.namespace": "shop", "a": "b"},
            "Args": ["run", "$HOME"],
            "Env": ["A=b$c"],
            "User": "7",
            "Mounts": [{"Type": "volume", "Source": "shop_data", "Target": "/data"}, {"Type": "tmpfs", "Target": "/t"}],
            "StopGracePeriod": 3_000_000_000,
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 2_000_000_000, "Retries": 4},
            "Secrets": [{"SecretID": "x", "SecretName": "key", "File": {"Name": "key", "UID": "0", "GID": "0", "Mode": 256}}],
            "Isolation": "default",
        },
        "Resources": {"Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 64 << 20}, "Reservations": {}},
        "RestartPolicy": {"Condition": "on-failure", "Delay": 5_000_000_000, "MaxAttempts": 3},
        "Placement": {
            "Constraints": ["node.role == worker"],
            "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.z"}}],
        },
        "Networks": [{"Target": "i" * 25, "Aliases": ["web", "www"]}],
        "ForceUpdate": 0,
    },
    "Mode": {"Replicated": {"Replicas": 4}},
    "UpdateConfig": {"Parallelism": 2, "Delay": 1_000_000_000, "FailureAction": "rollback", "Order": "start-first"},
    "EndpointSpec": {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}]},
}


def test_all_that_it_says_is_taken() -> None:
    stack = specs.read(SPEC, {"i" * 25: "shop_front"})
    (service,) = stack.services
    container = service.container
    assert (stack.name, service.name, service.replicas, service.where) == ("shop", "web", 4, specs.WHERE)
    assert (container.image, container.command, container.user) == ("nginx:1", ("run", "$HOME"), "7")
    assert dict(container.environment) == {"A": "b$c"}
    assert [(m.kind, m.source, m.target) for m in container.mounts] == [("volume", "shop_data", "/data"), ("tmpfs", "", "/t")]
    assert [(f.source, f.secret, f.mode) for f in container.files] == [("key", True, 0o400)]
    assert container.healthcheck
    assert (container.healthcheck.interval_s, container.healthcheck.retries) == (2.0, 4)
    assert (container.cpus, container.memory, container.restart, container.stop_grace_s) == (0.5, 64 << 20, "on-failure", 3.0)
    assert [(a.network, a.aliases) for a in container.attachments] == [("shop_front", ("web", "www"))]
    assert [(p.target, p.published, p.mode) for p in container.ports] == [(80, 8080, "ingress")]
    assert (service.placement.constraints, service.placement.spread) == (("node.role == worker",), ("node.labels.z",))
    assert service.update
    assert (service.update.parallelism, service.update.order) == (2, "start-first")
    assert dict(service.labels) == {"tier": "front"}


def test_what_is_shown_of_it_is_read_as_the_same() -> None:
    stack = specs.read(SPEC, {"i" * 25: "shop_front"})
    shown = objects.service_of(StackRecord(stack=stack, revision=1, updated=""), stack.services[0], [], [])["Spec"]
    networks = {objects.identity("network", "shop_front"): "shop_front"}
    assert specs.read(shown, networks).services == stack.services


def test_a_second_service_joins_the_first() -> None:
    first = specs.read(SPEC, {})
    second = specs.read(SPEC | {"Name": "shop_db", "EndpointSpec": {}}, {})
    both = specs.joined(first, second)
    assert [s.name for s in both.services] == ["web", "db"]
    again = specs.read(SPEC | {"Mode": {"Global": {}}}, {})
    assert [(s.name, s.mode) for s in specs.joined(both, again).services] == [("db", "replicated"), ("web", "global")]


def test_a_service_by_itself_has_a_stack_too() -> None:
    assert specs.names_of({"Name": "one"}) == (objects.SINGLE, "one")
    stack = specs.read({"Name": "one", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}}, {})
    assert (stack.name, [s.name for s in stack.services]) == (objects.SINGLE, ["one"])


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({}, "a service has a name"),
        ({"Name": "a"}, "a service has an image"),
        ({"Name": "a", "TaskTemplate": {"ContainerSpec": {"Image": "b", "Mounts": [{"Type": "npipe"}]}}}, "mount type npipe"),
        ({"Name": "a b", "TaskTemplate": {"ContainerSpec": {"Image": "b"}}}, "a b"),
        ({"Name": "a", "TaskTemplate": {"ContainerSpec": {"Image": "b", "Env": 7}}}, "environment"),
    ],
)
def test_what_cannot_be_meant_is_refused(spec: dict[str, Any], why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        specs.read(spec, {})
