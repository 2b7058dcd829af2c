"""What a value may look like, and what `config` makes of it: a table a subject. Source: Compose Specification, 05-services.md,
06-networks.md to 09-secrets.md, 12-interpolation.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.stackfile import envfile
from orchestrator.stackfile.canonical import canonicalize
from orchestrator.stackfile.interpolate import InvalidError, substitute
from orchestrator.stackfile.load import Loaded, Options, load
from orchestrator.stackfile.mount_text import converted, parts_of
from orchestrator.stackfile.problem import StackFileError
from orchestrator.stackfile.units import parse_duration, show_duration


def read(folder: Path, line: str, top: str = "", **environment: str) -> Loaded:
    (folder / "stack.yml").write_text(f"services:\n  a:\n    image: i\n    {line}\n  b: {{image: j}}\n{top}\n")
    return load(Options(files=(str(folder / "stack.yml"),), project_name="p"), environment)


def shown(folder: Path, line: str, top: str = "", **environment: str) -> Any:
    return canonicalize(read(folder, line, top, **environment))["services"]["a"].get(line.partition(":")[0])


SHOWN: dict[str, tuple[str, Any]] = {
    "a range for one port": (
        'ports: ["8080-8082:80"]',
        [{"mode": "ingress", "protocol": "tcp", "published": "8080-8082", "target": 80}],
    ),
    "port 0 of the host": (
        'ports: ["127.0.0.1:0:80"]',
        [{"mode": "ingress", "protocol": "tcp", "target": 80, "host_ip": "127.0.0.1"}],
    ),
    "a protocol in capitals": ('ports: ["80/UDP"]', [{"mode": "ingress", "protocol": "udp", "target": 80}]),
    "flags as text": ('init: "Yes"', True),
    "numbers as text": ('scale: "2"', 2),
    "sizes in bytes": ("mem_limit: 1.5g", "1610612736"),
    "no limit": ("memswap_limit: -1", "-1"),
    "durations as Go writes them": ("stop_grace_period: 90s", "1m30s"),
    "parts of deploy": (
        "deploy: {resources: {limits: {memory: 1k}}, update_config: {delay: 3600s}, labels: [a=b]}",
        {"resources": {"limits": {"memory": "1024"}}, "update_config": {"delay": "1h0m0s"}, "labels": {"a": "b"}},
    ),
    "several addresses of a host": ('extra_hosts: ["x:1.1.1.1,2.2.2.2", "y=[::1]"]', ["x=1.1.1.1", "x=2.2.2.2", "y=::1"]),
    "several addresses in a list": ("extra_hosts: {x: [1.1.1.1, 2.2.2.2]}", ["x=1.1.1.1", "x=2.2.2.2"]),
    "a CDI device": (
        'devices: ["vendor.com/class=0", "/dev/null"]',
        [
            {"source": "vendor.com/class=0", "target": "vendor.com/class=0", "permissions": "rwm"},
            {"source": "/dev/null", "target": "/dev/null", "permissions": "rwm"},
        ],
    ),
    "the size of a tmpfs": (
        "volumes: [{type: tmpfs, target: /t, tmpfs: {size: 1m}}]",
        [{"type": "tmpfs", "target": "/t", "tmpfs": {"size": "1048576"}}],
    ),
    "labels of a mount": (
        "volumes: [{type: volume, target: /t, volume: {labels: [a=1]}}]",
        [{"type": "volume", "target": "/t", "volume": {"labels": {"a": "1"}}}],
    ),
    "rates of disks": (
        "blkio_config: {device_read_bps: [{path: /d, rate: 1k}], device_write_iops: [{path: /d, rate: 30}]}",
        {"device_read_bps": [{"path": "/d", "rate": "1024"}], "device_write_iops": [{"path": "/d", "rate": "30"}]},
    ),
    "one of what may be several, in a build": (
        "build: {context: /c, no_cache_filter: x, shm_size: 1k, sbom: true}",
        {"context": "/c", "dockerfile": "Dockerfile", "no_cache_filter": ["x"], "shm_size": "1024", "sbom": "true"},
    ),
    "one of what may be several, in a rule of watch": (
        "develop: {watch: [{path: /s, action: sync+exec, target: /t, include: x, exec: {command: a b, environment: [A=1]}}]}",
        {
            "watch": [
                {
                    "path": "/s",
                    "action": "sync+exec",
                    "target": "/t",
                    "include": ["x"],
                    "exec": {"command": ["a", "b"], "environment": {"A": "1"}},
                }
            ]
        },
    ),
    "options of a provider": (
        "provider: {type: t, options: {a: b, n: 1, l: [x, y]}}",
        {"type": "t", "options": {"a": ["b"], "n": ["1"], "l": ["x", "y"]}},
    ),
    "groups by number": ("group_add: [mail, 1000]", ["mail", "1000"]),
    "all devices of a kind": (
        "deploy: {resources: {reservations: {devices: [{capabilities: [gpu], count: all, options: [a=1]}]}}}",
        {"resources": {"reservations": {"devices": [{"capabilities": ["gpu"], "count": -1, "options": {"a": "1"}}]}}},
    ),
    "devices by name": (
        "gpus: [{capabilities: [gpu], device_ids: ['0']}]",
        [{"capabilities": ["gpu"], "device_ids": ["0"]}],
    ),
    "a drive of Windows": (
        r'volumes: ["C:\\here:/x:ro"]',
        [{"type": "bind", "source": "C:\\here", "target": "/x", "read_only": True, "bind": {"create_host_path": True}}],
    ),
    "no restart": ('restart: ""', None),
    "a test of the image": ("healthcheck: {test: []}", {}),
    "what is not so": ("privileged: false", None),
    "no bytes": ("mem_limit: 0", None),
    "nothing of many": ("cap_add: []", None),
    "no init, said": ("init: false", False),
    "not attached, said": ("attach: false", False),
    "no replica, said": ("scale: 0", 0),
    "no time to end, said": ("stop_grace_period: 0s", "0s"),
    "no command, said": ("command: []", []),
    "a network of which nothing is said": ("networks: {default: {priority: 0, aliases: []}}", {"default": {}}),
    "a mount to be written": (
        "volumes: [{type: tmpfs, target: /x, read_only: false, tmpfs: {size: 0}}]",
        [{"type": "tmpfs", "target": "/x", "tmpfs": {}}],
    ),
    "limits of nothing": (
        "deploy: {replicas: 0, placement: {}, update_config: {delay: 0s, parallelism: 0}, resources: {limits: {memory: '0'}}}",
        {"replicas": 0, "update_config": {"parallelism": 0}, "resources": {"limits": {}}},
    ),
    "a build without": (
        "build: {context: /tmp, no_cache: false, args: {}}",
        {"context": "/tmp", "dockerfile": "Dockerfile"},
    ),
    "limits as text": ("ulimits: {core: '5', nofile: {soft: '1', hard: 2}}", {"core": 5, "nofile": {"soft": 1, "hard": 2}}),
    "a folder that is made where nothing else is said": (
        "volumes: [{type: bind, source: /x, target: /x, bind: {propagation: rshared}}]",
        [
            {
                "type": "bind",
                "source": "/x",
                "target": "/x",
                "bind": {"create_host_path": True, "propagation": "rshared"},
            }
        ],
    ),
    "a check that is one": (
        "healthcheck: {test: x, disable: false, interval: 0s}",
        {"test": ["CMD-SHELL", "x"], "interval": "0s"},
    ),
    "no retries said": ("healthcheck: {test: x, retries: 0}", {"test": ["CMD-SHELL", "x"], "retries": 0}),
    "a date is text": ("environment: {A: 2020-01-01}", {"A": "2020-01-01"}),
    "the old word of a pull policy": ("pull_policy: if_not_present", "missing"),
    "nothing to develop": ("develop:", None),
}


@pytest.mark.parametrize(("line", "want"), SHOWN.values(), ids=SHOWN)
def test_what_is_shown(line: str, want: Any, tmp_path: Path) -> None:
    assert shown(tmp_path, line) == want


REFUSED: dict[str, tuple[str, str, str]] = {
    "a range that ends before it begins": ('ports: ["80-70"]', "", "the range 80-70 ends before it begins"),
    "port 0 of the container": ('ports: ["0"]', "", "port 0 does not exist"),
    "an exposed port that is none": ("expose: [abc]", "", "expose[0]: 'abc' is not a port"),
    "half a range": ('expose: ["80-"]', "", "expose[0]: '80-' is not a port"),
    "an empty source": ('volumes: [":/x"]', "", "it has an empty part"),
    "a host without a name": ('extra_hosts: [":1.1.1.1"]', "", "'' is not a host name"),
    "two replicas counts": ("{scale: 2, deploy: {replicas: 3}}", "", "scale: is 2, and deploy.replicas is 3"),
    "two limits of CPUs": (
        "{cpus: 1, deploy: {resources: {limits: {cpus: '2'}}}}",
        "",
        "cpus: is 1, and deploy.resources.limits.cpus is 2",
    ),
    "two limits of memory": ("{mem_limit: 1g, deploy: {resources: {limits: {memory: 2g}}}}", "", "mem_limit: is 1g"),
    "two limits of processes": ("{pids_limit: 1, deploy: {resources: {limits: {pids: 2}}}}", "", "pids_limit: is 1"),
    "two reservations": (
        "{mem_reservation: 1g, deploy: {resources: {reservations: {memory: 2g}}}}",
        "",
        "mem_reservation: is 1g",
    ),
    "two Dockerfiles": ("build: {context: ., dockerfile: D, dockerfile_inline: FROM x}", "", "cannot stand beside dockerfile"),
    "a platform that is not built": (
        "{platform: linux/arm64, build: {context: ., platforms: [linux/amd64]}}",
        "",
        "does not have the service's platform",
    ),
    "a context of no service": (
        'build: {context: ., additional_contexts: {x: "service:z"}}',
        "",
        "service 'z' is not in the file",
    ),
    "a context of a service without build": (
        'build: {context: ., additional_contexts: {x: "service:b"}}',
        "",
        "service 'b' is not built",
    ),
    "nothing to watch": ('develop: {watch: [{path: "", action: rebuild}]}', "", "must name a file or folder"),
    "a name that somebody has": ("container_name: xx", "  c: {image: k, container_name: xx}", "'xx' is service a's already"),
    "an address outside its network": (
        "networks: {n: {ipv4_address: 10.6.0.5}}",
        "networks: {n: {ipam: {config: [{subnet: 10.5.0.0/24}]}}}",
        "networks.n.ipv4_address: 10.6.0.5 is not in 10.5.0.0/24",
    ),
    "two names of a volume": ("volumes: ['v:/v']", "volumes: {v: {name: x, external: {name: y}}}", "is 'y', and name is 'x'"),
    "a driver of an external volume": (
        "volumes: ['v:/v']",
        "volumes: {v: {external: {name: y}, driver: local}}",
        "driver: conflicts with external",
    ),
    "a service that is not there is extended": ("extends: zz", "", "extends: service 'zz' is not there"),
    "one that is not there, in the long form": ("extends: {service: zz}", "", "extends: service 'zz' is not there"),
    "an unknown key of extends": ("extends: {service: b, foo: 1}", "", "extends.foo: no such key"),
}


@pytest.mark.parametrize(("line", "top", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(line: str, top: str, words: str, tmp_path: Path) -> None:
    if line.startswith("{"):
        line = f"<<: {line}"
    with pytest.raises(StackFileError) as caught:
        read(tmp_path, line, top)
    assert words in str(caught.value)
    assert "stack.yml:" in str(caught.value)


LATER: dict[str, tuple[str, str, str]] = {
    "a path of Windows": (r'volumes: ["C:\\x:/x"]', "", "no such path on a node"),
    "a target that is not absolute": ('volumes: ["v:x"]', "volumes: {v: }", "must be an absolute path"),
    "a named pipe": (r"volumes: [{type: npipe, source: '\\.\pipe\a', target: '\\.\pipe\b'}]", "", "Windows containers"),
    "a cluster volume": ("volumes: [{type: cluster, source: c, target: /x}]", "", "plugin for cluster volumes"),
    "a volume's driver that is not here": ('volumes: ["v:/x"]', "volumes: {v: {driver: x}}", "there is no driver 'x'"),
    "a secret's driver": ("secrets: [s]", "secrets: {s: {driver: vault}}", "is of the driver 'vault'"),
    "one port twice": ('ports: ["80:80"]', "  c: {image: k, ports: ['80:1']}", "is published by a already"),
    "replicas with one address": (
        "{scale: 2, ports: ['127.0.0.1:80:80']}",
        "",
        "2 replicas cannot share port 80 of one address",
    ),
    "a secret's file": ("secrets: [s]", "secrets: {s: {file: ./none}}", "none cannot be read: No such file"),
    "a config's variable": ("configs: [c]", "configs: {c: {environment: NONE}}", "configs.c.environment: variable NONE is not"),
    "an IPv4 address that is none": ("networks: {n: {ipv4_address: y}}", "networks: {n: }", "'y' is not an IPv4 address"),
    "an address of a zone": ("networks: {n: {ipv6_address: 'fe80::1%e'}}", "networks: {n: }", "is not an IPv6 address"),
    "a link-local address": ("networks: {n: {link_local_ips: [y]}}", "networks: {n: }", "'y' is not an IP address"),
    "a MAC address that is none": ("networks: {n: {mac_address: y}}", "networks: {n: }", "'y' is not a MAC address"),
    "a MAC address of the service": ("mac_address: y", "", "mac_address: 'y' is not a MAC address"),
    "a host's address": ("extra_hosts: [x=y]", "", "x: 'y' is not an IP address"),
    "a restart policy": ("restart: sometimes", "", "'sometimes' is not a restart policy"),
    "a mode": ("deploy: {mode: swarm}", "", "deploy.mode: 'swarm' is not known"),
    "an endpoint mode": ("deploy: {endpoint_mode: x}", "", "deploy.endpoint_mode: 'x' is not known"),
    "what follows a failure": ("deploy: {update_config: {failure_action: x}}", "", "failure_action: 'x' is not known"),
    "when it restarts": ("deploy: {restart_policy: {condition: x}}", "", "must be none, on-failure or any"),
    "a constraint": ("deploy: {placement: {constraints: [node=x]}}", "", "constraints[0]: 'node=x' has no operator"),
    "a preference": ("deploy: {placement: {preferences: [{spread: x}]}}", "", "preferences[0]: spread over 'x'"),
    "generic resources of nothing": (
        "deploy: {resources: {reservations: {generic_resources: [{}]}}}",
        "",
        "needs discrete_resource_spec",
    ),
    "a device that is no path": ("devices: [tty]", "", "devices[0]: 'tty' is not a device path"),
    "a user namespace": ("userns_mode: x", "", "userns_mode: 'x' is not known"),
    "a limit of no disk": ("blkio_config: {device_read_bps: [{rate: 1m}]}", "", "needs path and rate"),
    "a weight of disks": ("blkio_config: {weight: 5}", "", "weight: must be from 10 to 1000"),
    "a short CFS period": ("cpu_period: 5", "", "cpu_period: must be at least 1000 microseconds"),
    "memory below nothing": ("mem_limit: -3", "", "mem_limit: a size cannot be negative"),
    "a mode of a port": ("ports: [{target: 80, mode: x}]", "", "ports[0].mode: 'x' is not a mode"),
    "a protocol of a port": ("ports: [{target: 80, protocol: x}]", "", "'x' is not a protocol"),
    "a subnet that is none": (
        "networks: [n]",
        "networks: {n: {ipam: {config: [{subnet: abc}]}}}",
        "ipam.config[0]: the subnet is not CIDR",
    ),
    "a gateway of another subnet": (
        "networks: [n]",
        "networks: {n: {ipam: {config: [{subnet: 10.0.0.0/24, gateway: 10.9.0.1}]}}}",
        "10.9.0.1 is not an address of",
    ),
    "a range of another subnet": (
        "networks: [n]",
        "networks: {n: {ipam: {config: [{subnet: 10.0.0.0/24, ip_range: 10.9.0.0/24}]}}}",
        "is not a range of this subnet",
    ),
    "an address kept free elsewhere": (
        "networks: [n]",
        "networks: {n: {ipam: {config: [{subnet: 10.0.0.0/24, aux_addresses: {h: 1.2.3.4}}]}}}",
        "1.2.3.4 is not an address of",
    ),
    "an MTU that is none": (
        "networks: [n]",
        "networks: {n: {driver_opts: {com.docker.network.driver.mtu: a@b}}}",
        "'a@b' is not an MTU",
    ),
    "a mode of macvlan": (
        "networks: [n]",
        "networks: {n: {driver: macvlan, driver_opts: {macvlan_mode: x}}}",
        "macvlan has no macvlan_mode 'x'",
    ),
    "an option that the driver has not": (
        'volumes: ["v:/x"]',
        "volumes: {v: {driver_opts: {a: b}}}",
        "the driver local has no such option",
    ),
    "a size that is none": (
        'volumes: ["v:/x"]',
        "volumes: {v: {driver_opts: {size: much}}}",
        "'much': a size is a number",
    ),
    "a size of what is no folder": (
        'volumes: ["v:/x"]',
        "volumes: {v: {driver_opts: {size: 1g, type: tmpfs, device: tmpfs}}}",
        "it excludes type",
    ),
    "a tmpfs at no path": ("tmpfs: x", "", "tmpfs[0]: 'x' must be an absolute path"),
}


@pytest.mark.parametrize(("line", "top", "words"), LATER.values(), ids=LATER)
def test_what_is_shown_and_not_started(line: str, top: str, words: str, tmp_path: Path) -> None:
    """`config` has it, as Docker Compose's has; no container is made of it, and why has its line."""
    found = read(tmp_path, f"<<: {line}" if line.startswith("{") else line, top)
    assert canonicalize(found)["services"]["a"]
    problems = [s.problem for s in found.stack.services if s.problem]
    assert words in "\n".join(problems)
    assert "stack.yml:" in "\n".join(problems)


def test_a_mode_may_name_a_network_that_is_there(tmp_path: Path) -> None:
    found = read(tmp_path, "network_mode: lan")
    [a, _] = found.stack.services
    assert [x.network for x in a.container.attachments] == ["lan"]
    assert [(n.name, n.external) for n in found.stack.networks if n.name == "lan"] == [("lan", True)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("/a:/b", ["/a", "/b"]),
        ("v:/b:ro", ["v", "/b", "ro"]),
        (r"C:\a:/b", [r"C:\a", "/b"]),
        ("c:/a:/b", ["c:/a", "/b"]),
        (r"C:\a:D:\b:ro", [r"C:\a", r"D:\b", "ro"]),
        ("C:/a:D:/b", ["C:/a", "D:/b"]),
        ("/x", ["/x"]),
        ("v:/a:", ["v", "/a", ""]),
    ],
)
def test_a_drive_is_no_part_of_its_own(text: str, parts: list[str]) -> None:
    assert parts_of(text) == parts


def test_paths_of_windows_are_converted_where_it_is_asked_for(tmp_path: Path) -> None:
    assert converted(r"C:\Users\me") == "/c/Users/me"
    found = read(tmp_path, r'volumes: ["C:\\Users\\me:/x"]', COMPOSE_CONVERT_WINDOWS_PATHS="1")
    assert found.stack.services[0].container.mounts[0].source == "/c/Users/me"
    assert not found.stack.services[0].problem
    assert canonicalize(found)["services"]["a"]["volumes"][0]["source"] == "/c/Users/me"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("${A:-${U:?e}}", "a"),
        ("${A-${U?e}}", "a"),
        ("${U:+${V:?e}}", ""),
        ("${U:-${V:-x}}", "x"),
        ("${A:+${B}}", "b"),
        ("${U:-$$x}", "$x"),
        ("$${A}", "${A}"),
        ("$$$A", "$a"),
        ("${U:-http://x:80/?y}", "http://x:80/?y"),
    ],
)
def test_a_default_that_is_not_needed_needs_nothing(text: str, want: str) -> None:
    assert substitute(text, {"A": "a", "B": "b"}) == want
    with pytest.raises(InvalidError):
        substitute("${U:-${V:?e}}", {})


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (r"A='a\'b'", "a'b"),
        (r"A='a\nb'", r"a\nb"),
        (r'A="a\nb\t\"c\" \$B \\ \0101"', 'a\nb\t"c" $B \\ A'),
        ('A="$$B"', "$B"),
        ("A='$$B'", "$$B"),
        ("A=$$B", "$B"),
        ("A=$B", "b"),
        ('A="x # y" # z', "x # y"),
        ("A=x # y", "x"),
        ("A=x#y", "x#y"),
        ("A: x", "x"),
        ("export A=x", "x"),
        ("A='x\ny'", "x\ny"),
        ("A=", ""),
        ('A="${U:-d}"', "d"),
        ("A=a=b", "a=b"),
    ],
)
def test_quotes_of_env_files(text: str, want: str) -> None:
    assert envfile.parse(text, {"B": "b"}) == {"A": want}


def test_names_of_env_files() -> None:
    assert envfile.parse("1A=x\nB.c-d[0]=y\n", {}) == {"1A": "x", "B.c-d[0]": "y"}
    with pytest.raises(InvalidError):
        envfile.parse("A b=1", {})


@pytest.mark.parametrize("text", ["0s", "10s", "1m30s", "1h0m0s", "1.5s", "500ms", "100µs", "24h0m0s", "1m0.25s"])
def test_a_duration_is_shown_as_it_is_read(text: str) -> None:
    assert show_duration(parse_duration(text)) == text


def test_a_variable_that_is_not_set_is_told_once(tmp_path: Path) -> None:
    found = read(tmp_path, "command: ['${NOPE}', '$NOPE', '${OTHER:-x}']")
    assert [(n.what, str(n.where).rpartition("/")[2]) for n in found.notes] == [
        ('The "NOPE" variable is not set', "stack.yml:4:15")
    ]
    assert not found.warnings


def test_a_build_argument_that_is_not_set_is_none(tmp_path: Path) -> None:
    """The Dockerfile's own default counts."""
    found = read(tmp_path, "build: {context: ., args: [A, B, C=1]}", A="x")
    assert found.stack.services[0].build is not None
    assert found.stack.services[0].build.args == (("A", "x"), ("C", "1"))


def test_what_is_reset_is_not_there_for_who_extends_it(tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text(
        "services:\n  a: {image: x, environment: !reset {A: 1}, ports: !reset ['1:1']}\n  b: {extends: a}\n"
    )
    bodies = load(Options(files=(str(tmp_path / "stack.yml"),)), {}).document["services"]
    assert bodies == {"a": {"image": "x"}, "b": {"image": "x"}}
