"""What pools, gateways and drivers of networks cannot be, and what watch rules and pull policies lack."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import PystackError
from orchestrator.stackfile.load import Options, load

POOL = "networks: {n: {ipam: {config: [{%s}]}}}"
NETWORKS = [
    (POOL % "subnet: 10.1.0.0/33", "the subnet is not CIDR"),
    (POOL % "subnet: 10.1.0.0/24, gateway: 10.2.0.1", "10.2.0.1 is not an address of 10.1.0.0/24"),
    (POOL % "subnet: 10.1.0.0/24, gateway: door", "door is not an address of 10.1.0.0/24"),
    (POOL % "subnet: 10.1.0.0/24, ip_range: 10.2.0.0/25", "is not a range of this subnet: it is not inside"),
    (POOL % "subnet: 10.1.0.0/24, ip_range: some", "some is not a range of this subnet"),
    (POOL % "subnet: 10.1.0.0/24, aux_addresses: {printer: 10.2.0.9}", "10.2.0.9 is not an address of 10.1.0.0/24"),
    (POOL % "subnet: 10.1.0.0/24, aux_addresses: {printer: somewhere}", "somewhere is not an address of 10.1.0.0/24"),
]
SERVICES = [
    ("healthcheck: {test: ['true']}", "a list must begin with NONE, CMD or CMD-SHELL"),
    ("pull_policy: sometimes", "must be always, missing, never, build, refresh, daily, weekly or every_DURATION"),
    ("pull_policy: every_moment", "a duration is written like 1m30s"),
    ("develop: {watch: [{path: ., action: sync}]}", "sync needs target, an absolute path in the container"),
    ("develop: {watch: [{path: ., action: sync+exec, target: /app}]}", "sync+exec needs exec"),
    ("post_start: [{user: root}]", "needs"),
    ("configs: [{source: c, mode: all}]", "mode"),
    ("env_file: [{path: x, format: odd}]", "is not a format"),
]


def read(folder: Path, text: str) -> str:
    file = folder / "stack.yml"
    file.write_text(text)
    try:
        found = load(Options(files=(str(file),)), {})
    except PystackError as error:
        return str(error)
    return "\n".join(service.problem for service in found.stack.services)  # why it is not started


@pytest.mark.parametrize(("section", "said"), NETWORKS, ids=[said for _, said in NETWORKS])
def test_a_pool_that_is_none_has_its_place(tmp_path: Path, section: str, said: str) -> None:
    found = read(tmp_path, f"name: s\nservices: {{a: {{image: busybox, networks: [n]}}}}\n{section}\n")
    assert said in found
    assert "stack.yml:3:" in found


@pytest.mark.parametrize(("fields", "said"), SERVICES, ids=[fields for fields, _ in SERVICES])
def test_a_field_that_is_none_has_its_place(tmp_path: Path, fields: str, said: str) -> None:
    found = read(tmp_path, f"name: s\nservices:\n  a: {{image: busybox, {fields}}}\nconfigs: {{c: {{content: x}}}}\n")
    assert said in found
    assert "stack.yml:3:" in found


def test_pools_of_both_families_are_read(tmp_path: Path) -> None:
    four = "{subnet: 10.1.0.0/24, gateway: 10.1.0.9, ip_range: 10.1.0.128/25, aux_addresses: {printer: 10.1.0.5}}"
    section = f"networks: {{n: {{enable_ipv6: true, ipam: {{config: [{four}, {{subnet: 'fd01::/64'}}]}}}}}}"
    assert read(tmp_path, f"name: s\nservices: {{a: {{image: busybox, networks: [n]}}}}\n{section}\n") == ""
