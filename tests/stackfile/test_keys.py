"""Each key of the specification: known here, and where it is said to be honoured, something becomes of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from orchestrator.stackfile import schema
from orchestrator.stackfile.keys import keys, markdown
from orchestrator.stackfile.load import Loaded, Options, load
from orchestrator.stackfile.problem import StackFileError
from tests.conftest import SHARED
from tests.signing import new_key, public

ROOT = Path(__file__).resolve().parents[2]
UPSTREAM = SHARED / "corpora" / "compose-go" / "compose-spec.json"
S, N, V = "services.*.", "networks.*.", "volumes.*."
"""What a key is tried with, and where it stands then: ITEM is replaced by {the key: the value}."""
VALUES: dict[str, Any] = {
    f"{S}storage_opt": {"size": "1g"},
    f"{S}build.dockerfile_inline": "FROM scratch",
    f"{S}build.args": {"A": "1"},
    f"{S}build.labels": {"A": "1"},
    f"{S}build.tags": ["t"],
    f"{S}pull_policy": "always",
    f"{S}environment": {"A": "1"},
    f"{S}platform": "linux/arm64",
    f"{S}env_file": "vars.env",
    f"{S}env_file[].path": "vars.env",
    f"{S}env_file[].required": False,
    f"{S}group_add": ["wheel"],
    f"{S}labels": {"A": "1"},
    f"{S}label_file": "vars.env",
    f"{S}annotations": {"A": "1"},
    f"{S}stop_grace_period": "3s",
    f"{S}restart": "always",
    f"{S}x-fence": "strict",
    f"{S}x-ingress-mode": "balanced",
    f"{S}healthcheck.test": "false",
    f"{S}healthcheck.retries": 9,
    f"{S}depends_on": ["b"],
    f"{S}links": ["b:c"],
    f"{S}cpus": 0.5,
    f"{S}cpu_shares": 5,
    f"{S}cpu_period": 5000,
    f"{S}cpu_quota": 5000,
    f"{S}mem_limit": "5m",
    f"{S}mem_reservation": "5m",
    f"{S}memswap_limit": "50m",
    f"{S}mem_swappiness": 5,
    f"{S}pids_limit": 5,
    f"{S}oom_score_adj": 5,
    f"{S}shm_size": "5m",
    f"{S}cgroup": "host",
    f"{S}ulimits": {"nofile": 5},
    f"{S}sysctls": {"net.core.somaxconn": 5},
    f"{S}devices": ["/dev/null"],
    f"{S}volumes": ["v:/v"],
    f"{S}volumes_from": ["b"],
    f"{S}tmpfs": "/t",
    f"{S}configs": ["c"],
    f"{S}secrets": ["s"],
    f"{S}network_mode": "host",
    f"{S}networks": ["n"],
    f"{S}mac_address": "02:42:ac:11:00:02",
    f"{S}ports": ["80"],
    f"{S}extra_hosts": ["x:10.0.0.1"],
    f"{S}logging.driver": "none",
    f"{S}logging.options": {"max-size": "5m"},
    f"{S}pid": "host",
    f"{S}deploy.mode": "global",
    f"{S}x-schedule.cron": "@daily",
    f"{V}x-backup.to": "/mnt",
    **{f"{V}x-backup.{k}": "s2" for k in ("password", "credentials", "ssh_key", "known_hosts", "rclone")},
    **{f"{V}x-backup.{k}": "@hourly" for k in ("cron", "verify")},
    f"{V}x-backup.timezone": "Asia/Tokyo",
    **{f"{V}x-backup.{k}.service": "b" for k in ("before", "after")},
    **{f"{V}x-backup.{k}.environment": {"A": "1"} for k in ("before", "after")},
    f"{S}x-update.steps[].weight": 7,
    f"{S}x-stable.start": "parallel",
    f"{S}x-scale.max": 8,
    f"{S}x-scale.target.cpu": "60%",
    f"{S}x-scale.target.query": "sum(queue_length)",
    **{f"{S}{k}.environment": {"A": "1"} for k in ("x-hooks.pre_deploy", "x-hooks.post_deploy", "x-update.analysis")},
    f"{S}x-schedule.timezone": "Europe/Berlin",
    f"{S}x-schedule.concurrency": "replace",
    f"{S}x-schedule.missed": "skip",
    f"{S}deploy.endpoint_mode": "dnsrr",
    f"{S}profiles": ["p"],
    f"{S}deploy.resources.limits.memory": "5m",
    f"{S}deploy.resources.reservations.memory": "5m",
    f"{S}deploy.restart_policy.condition": "any",
    f"{S}deploy.placement.constraints": ["node.role == worker"],
    f"{S}deploy.placement.preferences[].spread": "node.labels.zone",
    f"{S}scale": 3,
    f"{S}deploy.replicas": 3,
    f"{S}extends": {"service": "b"},
    f"{S}x-placement.constraints": ["node.labels.a exists"],
    f"{S}depends_on.*.condition": "service_healthy",
    f"{S}healthcheck.disable": True,
    f"{S}command": "x y",
    f"{N}driver": "macvlan",
    f"{N}ipam.config[].subnet": "10.5.0.0/24",
    f"{N}ipam.config[].ip_range": "10.5.0.0/25",
    f"{N}ipam.config[].gateway": "10.5.0.9",
    f"{N}ipam.config[].aux_addresses": {"x": "10.5.0.7"},
    f"{V}driver": "sshfs",
    f"{V}driver_opts": {"type": "tmpfs", "o": "size=1m", "device": "tmpfs"},
    f"{S}networks.*.ipv4_address": "10.5.0.5",
    f"{S}networks.*.ipv6_address": "fd00::5",
    f"{S}networks.*.gw_priority": 5,
    f"{S}networks.*.link_local_ips": ["169.254.1.1"],
    f"{S}networks.*.mac_address": "02:42:ac:11:00:02",
    f"{S}ports[].target": 81,
    f"{S}ports[].published": 81,
    f"{S}ports[].host_ip": "10.0.0.1",
    f"{S}ports[].protocol": "udp",
    f"{S}ports[].mode": "host",
    f"{S}volumes[].type": "tmpfs",
    f"{S}volumes[].source": "v2",
    f"{S}volumes[].target": "/w",
    f"{S}volumes[].bind.propagation": "rslave",
    f"{S}volumes[].bind.create_host_path": False,
    f"{S}devices[].target": "/dev/x",
    f"{S}volumes[].tmpfs.size": "5m",
    f"{S}volumes[].tmpfs.mode": 0o700,
    f"{S}devices[].permissions": "r",
    f"{S}configs[].mode": 0o400,
    f"{S}secrets[].mode": 0o400,
    f"{S}configs[].source": "c2",
    f"{S}secrets[].source": "s2",
    f"{S}configs[].uid": "5",
    f"{S}configs[].gid": "5",
    f"{S}secrets[].uid": "5",
    f"{S}secrets[].gid": "5",
    f"{S}deploy.resources.reservations.generic_resources[].discrete_resource_spec.kind": "fpga",
    f"{S}deploy.resources.reservations.generic_resources[].discrete_resource_spec.value": 7,
    f"{S}build.context": "./other",
    "configs.*.file": "vars.env",
    "secrets.*.file": "vars.env",
    "configs.*.environment": "HOME_OF_TEST",
    "secrets.*.environment": "HOME_OF_TEST",
    "configs.*.content": "other",
    "include[].path": "more.yml",
    "include": ["more.yml"],
    "include[].project_directory": "sub",
    "include[].env_file": "vars.env",
    f"{S}extends.file": "more.yml",
    f"{S}extends.service": "c",
    f"{S}depends_on.*.required": False,
    f"{S}post_start[].environment": {"A": "1"},
    f"{S}pre_stop[].environment": {"A": "1"},
    f"{S}develop.watch[].action": "restart",
    f"{S}develop.watch[].path": "other",
    f"{S}develop.watch[].target": "/other",
    f"{S}develop.watch[].exec.environment": {"A": "1"},
    f"{S}develop.watch[].exec.command": "other",
    f"{N}driver_opts": {"com.docker.network.bridge.name": "x"},
    f"{N}labels": {"A": "1"},
    f"{V}labels": {"A": "1"},
    f"{S}networks.*.driver_opts": {"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1"},
    f"{S}build.additional_contexts": {"x": "."},
    f"{S}build.extra_hosts": ["x:10.0.0.1"],
    f"{S}env_file[].format": "raw",
    f"{S}build.secrets[].source": "s2",
    f"{S}build.ulimits.*.soft": 5,
    f"{S}build.ulimits.*.hard": 9,
    f"{S}volumes[].bind.recursive": "disabled",
    f"{S}cpu_rt_period": 5000,
    f"{S}cpu_rt_runtime": 5000,
    f"{S}blkio_config.weight": 50,
    f"{S}provider.options": {"a": "b"},
    f"{S}volumes[].image.subpath": "usr",
    **{f"{S}blkio_config.device_{k}[].rate": 7 for k in ("read_bps", "read_iops", "write_bps", "write_iops")},
    f"{S}pre_start[].environment": {"A": "1"},
    f"{S}pre_start[].command": "other",
    f"{S}deploy.update_config.failure_action": "rollback",
    f"{S}deploy.update_config.max_failure_ratio": 0.5,
    f"{S}deploy.rollback_config.failure_action": "continue",
    f"{S}deploy.rollback_config.max_failure_ratio": 0.5,
    f"{S}deploy.labels": {"A": "1"},
    "configs.*.template_driver": "golang",
    "secrets.*.template_driver": "golang",
    f"{S}attach": False,
    f"{S}cap_add": ["NET_ADMIN"],
    f"{S}cap_drop": ["CHOWN"],
    f"{S}expose": ["8000-8001/udp"],
    f"{S}x-harden": "strict",
    f"{S}x-cpu-burst": "5ms",
    f"{S}x-hugepages": {"2MB": "4m"},
    f"{S}blkio_config.weight_device[].path": "/dev/b",
    **{f"{S}blkio_config.device_{k}[].path": "/dev/b" for k in ("read_bps", "read_iops", "write_bps", "write_iops")},
    "x-policy.signed": [{"keys": "key.pub"}],
    "x-policy.signed[].images": "docker.io/*",
    "x-policy.signed[].keys": "other.pub",
    "x-policy.registries": "docker.io",
    "x-policy.latest": False,
    "x-policy.root": False,
    "x-policy.max_age": "90d",
    "x-policy.locked": True,
    **{f"{at}x-bandwidth.{key}": "9mbit" for at in (S, f"{S}networks.*.", N) for key in ("ingress", "egress")},
    **{f"{at}x-bandwidth.burst": "64k" for at in (S, f"{S}networks.*.", N)},
    f"{S}x-build": {"node": "n"},
    f"{S}build.ssh": {"default": None},
    f"{S}x-metrics": {"port": 1},
    f"{S}x-metrics.port": 2,
    f"{S}x-metrics.path": "/x",
    f"{S}x-ingress": [{"host": "a.org", "port": 1}],
    f"{S}x-ingress[].host": "b.org",
    f"{S}x-ingress[].path": "/x",
    f"{S}x-ingress[].port": 2,
    f"{S}x-ingress[].protocol": "h2c",
    f"{S}x-ingress[].sticky": "ip",
    f"{S}x-ingress[].tls": "off",
    f"{S}x-ingress[].redirect": False,
    f"{S}x-ingress[].allow": ["10.0.0.0/8"],
    f"{S}x-ingress[].rate_limit": "5/m",
    f"{S}x-ingress[].headers.request": {"X-A": "1"},
    f"{S}x-ingress[].headers.response": {"X-A": "1"},
}
"""What must stand around a key for it to count, at its parent."""
AROUND: dict[str, dict[str, Any]] = {
    f"{S}deploy.resources.reservations.devices[]": {"capabilities": ["gpu"]},
    f"{S}build": {"context": "."},
    f"{S}env_file[]": {"path": "missing.env"},
    f"{S}devices[]": {"source": "/dev/null"},
    f"{S}ports[]": {"target": 80, "published": 80},
    f"{S}volumes[]": {"type": "volume", "source": "v", "target": "/v"},
    f"{S}volumes[].bind": {},
    f"{S}volumes[].tmpfs": {},
    f"{S}networks.*": {},
    f"{S}deploy.restart_policy": {"condition": "on-failure"},
    f"{S}configs[]": {"source": "c", "target": "/c"},
    f"{S}secrets[]": {"source": "s", "target": "/s"},
    f"{S}develop.watch[]": {"path": ".", "action": "sync", "target": "/app"},
    f"{S}develop.watch[].exec": {"command": "a"},
    f"{S}healthcheck": {"test": "true", "start_period": "9s"},
    "x-policy.signed[]": {"keys": "key.pub"},
    **{f"{at}x-bandwidth": {"ingress": "20mbit"} for at in (S, f"{S}networks.*.", N)},
    f"{S}pre_start[]": {"command": "a"},
    f"{S}x-schedule": {"cron": "5 4 * * *"},
    f"{V}x-backup": {"to": "/srv", "password": "s"},
    **{f"{V}x-backup.{k}": {"command": "a", "service": "a"} for k in ("before", "after")},
    f"{S}x-scale": {"max": 9, "target": {"cpu": 50}},
    f"{S}x-scale.target": {"cpu": 50},
    f"{S}x-scale.target.query": {"promql": "up"},
    f"{S}x-update": {"strategy": "canary", "steps": [{"weight": 5}]},
    f"{S}x-update.steps[]": {"weight": 5},
    **{f"{S}{k}": {"command": "a"} for k in ("x-hooks.pre_deploy", "x-hooks.post_deploy", "x-update.analysis")},
    f"{S}build.secrets[]": {"source": "s"},
    f"{S}build.ulimits.*": {"soft": 3, "hard": 7},
    f"{S}provider": {"type": "t"},
    f"{S}blkio_config.weight_device[]": {"path": "/dev/a", "weight": 9},
    f"{S}volumes[].image": {},
    **{
        f"{S}blkio_config.device_{k}[]": {"path": "/dev/a", "rate": 9}
        for k in ("read_bps", "read_iops", "write_bps", "write_iops")
    },
    f"{S}depends_on.*": {"condition": "service_started"},
    f"{S}ulimits.*": {"soft": 3, "hard": 7},
    f"{S}post_start[]": {"command": "a"},
    f"{S}pre_stop[]": {"command": "a"},
    f"{N}ipam.config[]": {"subnet": "10.5.0.0/16"},
    f"{S}x-metrics": {"port": 1},
    f"{S}x-ingress[]": {"host": "a.org", "port": 1},
    f"{S}extends": {"service": "b"},
    "include[]": {"path": "other.yml"},
    f"{S}deploy.resources.reservations.generic_resources[].discrete_resource_spec": {"kind": "gpu", "value": 1},
}
ELSEWHERE = {
    "version": "of old files",
    f"{S}x-update.strategy": "tried in tests/kernel/test_rollouts.py",
    f"{S}x-update.abort_on.health": "always",
    "services": "the whole",
    "networks": "the whole",
    "volumes": "the whole",
    "configs": "the whole",
    "secrets": "the whole",
    f"{S}ports[].name": "for people",
    f"{S}ports[].app_protocol": "for people",
    f"{N}attachable": "every network is",
    "include[].env_file": "tried in test_sources",
    "include[].project_directory": "tried in test_sources",
    f"{S}userns_mode": "host is what every container has",
    f"{S}extends.file": "tried in test_sources",
    f"{S}networks.*.priority": "tried in test_load",
    f"{S}x-ingress[].secret": "tried in test_ingress",
    f"{S}x-ingress[].basic_auth": "tried in test_ingress",
    f"{S}x-ingress[].udp": "tried in test_ingress",
}


def encoded(loaded: Loaded) -> Any:
    plain = msgspec.to_builtins((loaded.stack, loaded.providers))

    def bare(value: Any) -> Any:  # where a thing stands in the file is no effect
        if isinstance(value, dict):
            return {k: bare(v) for k, v in value.items() if k != "where"}
        return [bare(v) for v in value] if isinstance(value, (list, tuple)) else value

    return bare(plain)


NEEDED: dict[str, dict[str, Any]] = {
    "pull_refresh_after": {"pull_policy": "refresh"},
    "x-job": {"deploy": {"mode": "replicated-job"}},
    "x-cpu-burst": {"cpus": 0.5},
    "x-scale": {"mem_limit": "64m", "x-ingress": [{"host": "a.org", "port": 80}]},
    "x-update": {"x-ingress": [{"host": "a.org", "port": 80}]},
}
"""What a service must have beside a key of its own."""


def around(path: str, value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A document with the key, and the same without it."""
    parts = path.replace("[]", ".[]").split(".")

    def build(at: int, present: bool) -> Any:
        if at == len(parts):
            return value
        here = ".".join(parts[:at]).replace(".[]", "[]")
        beside = json.loads(json.dumps(AROUND.get(here, {})))
        if path.endswith("env_file[].format") and here.endswith("env_file[]"):
            beside = {"path": "vars.env"}
        if here == "services.*":
            beside = {**NEEDED.get(parts[at], beside)}
        for kind, source in (("bind", "/"), ("tmpfs", ""), ("image", "i")):
            if f"volumes[].{kind}." in path and here.endswith("volumes[]"):
                beside |= {"type": kind, "source": source}
        part = parts[at]
        if part == "[]":
            return [build(at + 1, present)]
        if part == "*":
            name = {"services": "a", "networks": "n", "volumes": "v", "configs": "c", "secrets": "s"}.get(parts[at - 1], "x")
            if at > 1:
                name = {"networks": "n", "depends_on": "b", "ulimits": "nofile"}.get(parts[at - 1], "x")
            return {name: build(at + 1, present)}
        if at == len(parts) - 1:
            if present:
                beside[part] = value
            else:
                beside.pop(part, None) if here not in AROUND or part not in AROUND[here] else None
            return beside
        return {**beside, part: build(at + 1, present)}

    return build(0, True), build(0, False)


def whole(part: dict[str, Any]) -> dict[str, Any]:
    """*part* with all that it may refer to."""
    base: dict[str, Any] = {
        "services": {"a": {"image": "i"}, "b": {"image": "j", "hostname": "from-b"}, "c": {"image": "k", "hostname": "from-c"}},
        "networks": {"n": {}},
        "volumes": {"v": {}, "v2": {}},
        "configs": {"c": {"content": "c"}, "c2": {"content": "c2"}},
        "secrets": {"s": {"file": "secret"}, "s2": {"file": "vars.env"}},
        "models": {"x": {"model": "m"}},
    }
    for section, body in part.items():
        if not isinstance(body, dict) or section not in base:
            base[section] = body
            continue
        for name, inner in body.items():
            base[section][name] = {**base[section].get(name, {}), **inner} if isinstance(inner, dict) else inner
    a = base["services"]["a"]
    users = {
        "networks": {"networks": ["n"]},
        "volumes": {"volumes": ["v:/v"]},
        "configs": {"configs": ["c"]},
        "secrets": {"secrets": ["s"]},
        "models": {"models": ["x"]},
    }
    for section in part:
        for key, item in users.get(section, {}).items():
            a.setdefault(key, item)
    for section in ("configs", "secrets"):
        for body in base[section].values():  # one source each
            if len(body.keys() & {"file", "content", "environment", "external"}) > 1:
                body.pop("content" if section == "configs" else "file")
    return base


def loaded(folder: Path, document: dict[str, Any]) -> Loaded:
    (folder / "stack.yml").write_text(yaml.safe_dump(document))
    return load(Options(files=(str(folder / "stack.yml"),), project_name=""), {"HOME_OF_TEST": "set"})


def sample(path: str) -> Any:
    if path in VALUES:
        return VALUES[path]
    shape: Any = {"properties": schema.FILE["properties"]}
    for part in path.replace("[]", ".[]").split("."):
        shape = step(shape, part)
    while "oneOf" in shape:
        shape = next((s for s in shape["oneOf"] if s.get("type") != "null"), shape["oneOf"][0])
    types = shape.get("type", "string")
    first = types if isinstance(types, str) else types[0]
    if "enum" in shape:
        return shape["enum"][-1]
    return {
        "string": "5s" if "duration" in shape.get("title", "") else "text",
        "boolean": True,
        "integer": 5,
        "number": 5,
        "array": ["text"],
        "object": {},
    }[first]


def step(shape: Any, part: str) -> Any:
    if "$ref" in shape:
        shape = schema.DEFS[shape["$ref"].rpartition("/")[2]]
    for one in shape.get("oneOf", ()):
        found = step(one, part)
        if found:
            return found
    if part == "[]":
        return shape.get("items")
    if part == "*":
        named = [s for p, s in shape.get("patternProperties", {}).items() if p != "^x-"]
        rest = shape.get("additionalProperties")
        return named[0] if named else rest if isinstance(rest, dict) else None
    return shape.get("properties", {}).get(part)


def is_group(path: str) -> bool:
    """Its parts are tried by themselves."""
    return path in GROUPS and path not in VALUES


KEYS = tuple(keys())
GROUPS = {key.path[: end.start()] for key in KEYS for end in re.finditer(r"\.|\[\]", key.path)}
HONOURED = [k.path for k in KEYS if k.honoured and k.path not in ELSEWHERE and not is_group(k.path)]


@pytest.mark.parametrize("path", HONOURED)
def test_a_key_that_is_honoured_changes_what_is_asked_for(path: str, tmp_path: Path) -> None:
    (tmp_path / "vars.env").write_text("FROM_FILE='1'\n")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "more.yml").write_text("services: {more: {image: m}}\n")
    (tmp_path / "other.yml").write_text("services: {other: {image: m}}\n")
    for name in ("key.pub", "other.pub"):
        (tmp_path / name).write_text(public(new_key()))
    tried, without = around(path, sample(path))
    found = loaded(tmp_path, whole(tried))
    try:
        before = encoded(loaded(tmp_path, whole(without)))
    except StackFileError:
        before = None  # it is needed: without it the file is no stack
    assert encoded(found) != before, f"{sample(path)!r} changes nothing"
    assert not any(w.what.startswith(path.split("*")[0]) and path.rpartition(".")[2] in w.what for w in found.warnings)


def test_the_table_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "compose.md").read_text().startswith(markdown()), "`pystack schema --table > docs/compose.md`"


def upstream_paths(shape: Any, root: Any, path: str, out: set[str]) -> set[str]:
    if "$ref" in shape:
        shape = root["$defs"][shape["$ref"].rpartition("/")[2]]
    for one in (*shape.get("oneOf", ()), *shape.get("anyOf", ())):
        upstream_paths(one, root, path, out)
    for name, inner in shape.get("properties", {}).items():
        out.add(f"{path}.{name}")
        upstream_paths(inner, root, f"{path}.{name}", out)
    rest = shape.get("additionalProperties")
    for inner in (
        *(s for p, s in shape.get("patternProperties", {}).items() if p != "^x-"),
        *([rest] if isinstance(rest, dict) else []),
    ):
        upstream_paths(inner, root, f"{path}.*", out)
    if "items" in shape:
        upstream_paths(shape["items"], root, f"{path}[]", out)
    return out


def test_every_key_of_the_specifications_schema_is_known() -> None:
    if not UPSTREAM.exists():
        pytest.skip("the shared corpora are not here")
    theirs = json.loads(UPSTREAM.read_text())
    wanted = upstream_paths(theirs, theirs, "", set())
    known = upstream_paths(schema.document(), schema.document(), "", set())
    assert wanted - known == set()
    assert {p for p in known - wanted if ".x-" not in p} == set()
