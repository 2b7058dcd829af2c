"""`docker run` command lines: each option becomes the key that does the same, and the result is a stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.convert.document import Document
from orchestrator.convert.run import FLAGS, VALUES, commands, service_of
from orchestrator.errors import PystackError
from orchestrator.stackfile.load import Loaded, Options, load


def converted(text: str) -> Document:
    document = Document()
    for words in commands(text):
        service_of(document, words)
    return document


def loaded(document: Document, folder: Path) -> Loaded:
    (folder / "stack.yml").write_text(yaml.safe_dump(document.plain(), sort_keys=False))
    return load(Options(files=(str(folder / "stack.yml"),), project_name="p", consistency=False), {})


@pytest.mark.parametrize(
    ("line", "service", "body"),
    [
        ("docker run nginx", "nginx", {"image": "nginx"}),
        (
            "sudo docker container run -d --name web -p 8080:80/tcp -p 53:53/udp registry.local:5000/a/nginx:1.2 "
            "nginx -g 'daemon off;'",
            "web",
            {
                "image": "registry.local:5000/a/nginx:1.2",
                "container_name": "web",
                "ports": ["8080:80/tcp", "53:53/udp"],
                "command": ["nginx", "-g", "daemon off;"],
            },
        ),
        (
            "podman run -it --rm -e A=1 -eB='x y' --env C --env-file=.env alpine sh -c 'echo $HOME'",
            "alpine",
            {
                "stdin_open": True,
                "tty": True,
                "environment": {"A": "1", "B": "x y", "C": None},
                "env_file": [".env"],
                "command": ["sh", "-c", "echo $$HOME"],
            },
        ),
        (
            "docker run -v data:/var/lib -v /etc/x:/x:ro -v /anon --mount type=tmpfs,dst=/t,tmpfs-size=64m i",
            "i",
            {
                "volumes": [
                    "data:/var/lib",
                    "/etc/x:/x:ro",
                    "/anon",
                    {"type": "tmpfs", "target": "/t", "tmpfs": {"size": "64m"}},
                ]
            },
        ),
        (
            "docker run -m 512m --cpus 1.5 --memory-swap=1g --pids-limit 100 --ulimit nofile=1024:2048 --ulimit core=0 i",
            "i",
            {
                "mem_limit": "512m",
                "cpus": "1.5",
                "memswap_limit": "1g",
                "pids_limit": "100",
                "ulimits": {"nofile": {"soft": 1024, "hard": 2048}, "core": {"soft": 0, "hard": 0}},
            },
        ),
        (
            "docker run --health-cmd 'curl -f localhost' --health-interval 5s --health-retries 3 i",
            "i",
            {"healthcheck": {"test": "curl -f localhost", "interval": "5s", "retries": 3}},
        ),
        ("docker run --no-healthcheck --entrypoint '' i", "i", {"healthcheck": {"disable": True}, "entrypoint": []}),
        (
            "docker run --network host --pid host --privileged i",
            "i",
            {"network_mode": "host", "pid": "host", "privileged": True},
        ),
        (
            "docker run --net back --ip 10.0.0.5 --network-alias db --network-alias store i",
            "i",
            {"networks": {"back": {"ipv4_address": "10.0.0.5", "aliases": ["db", "store"]}}},
        ),
        (
            "docker run --restart on-failure:3 --stop-timeout 30 --log-driver local --log-opt max-size=5m --gpus all i",
            "i",
            {
                "restart": "on-failure:3",
                "stop_grace_period": "30s",
                "gpus": "all",
                "logging": {"driver": "local", "options": {"max-size": "5m"}},
            },
        ),
        ("docker run \\\n  -p 80:80 \\\n  -l a=b \\\n  i", "i", {"ports": ["80:80"], "labels": {"a": "b"}}),
    ],
)
def test_a_command_line_is_a_service(line: str, service: str, body: dict[str, Any], tmp_path: Path) -> None:
    document = converted(line)
    made = document.services[service]
    assert {k: made.get(k) for k in body} == body
    (tmp_path / ".env").write_text("")
    assert loaded(document, tmp_path).stack.services[0].name == service


def test_a_script_is_a_stack(tmp_path: Path) -> None:
    document = converted("""
        #!/bin/sh
        docker network create back   # other commands are no business of ours
        docker run -d --name db --network back -v data:/data postgres:16
        PASSWORD=x docker run -d --name web --network back --link db:database -p 80:80 nginx
        docker run nginx
    """)
    assert list(document.services) == ["db", "web", "nginx"]
    assert document.services["web"]["links"] == ["db:database"]
    assert document.plain()["volumes"] == {"data": {"name": "data"}}
    assert document.warnings == ["network back must exist: `pystack network create back`"]
    assert len(loaded(document, tmp_path).stack.services) == 3


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("docker run --publsh 80:80 i", "no option --publsh: did you mean --publish?"),
        ("docker run -p", "needs a value"),
        ("docker run -d", "the command names no image"),
        ("docker run 'x", "cannot be split"),
    ],
)
def test_a_command_that_docker_would_refuse_is_refused(line: str, why: str) -> None:
    with pytest.raises(PystackError, match=why.replace("?", r"\?")):
        converted(line)


def test_what_has_no_counterpart_is_said() -> None:
    assert converted("docker run -P --cidfile /x i").warnings == [
        "--publish-all has no counterpart: name the ports with ports:",
        "--cidfile has no counterpart: /x",
    ]


VALUE = {
    "--mount": "type=bind,src=/a,dst=/b,readonly",
    "--ulimit": "nofile=5",
    "--stop-timeout": "5",
    "--health-retries": "5",
    "--blkio-weight": "50",
    "--blkio-weight-device": "/dev/a:5",
    "--env": "A=b",
    "--label": "a=b",
    "--annotation": "a=b",
    "--sysctl": "a=b",
    "--storage-opt": "a=b",
    "--log-opt": "max-size=5m",
    "--publish": "80:80",
    "--volume": "/a:/c",
    "--restart": "always",
    "--pull": "always",
    "--tmpfs": "/x",
    "--device": "/dev/null",
    "--add-host": "a:1.2.3.4",
    "--memory": "64m",
    "--memory-swap": "64m",
    "--memory-reservation": "64m",
    "--shm-size": "64m",
    "--cpus": "0.5",
    "--health-interval": "5s",
    "--health-timeout": "5s",
    "--health-start-period": "5s",
    "--health-start-interval": "5s",
    "--cgroupns": "host",
    "--mac-address": "02:42:ac:11:00:02",
    "--ip": "10.0.0.1",
    "--ip6": "fd00::1",
    "--link-local-ip": "169.254.1.1",
    "--device-read-bps": "/dev/a:1m",
    "--device-write-bps": "/dev/a:1m",
    "--device-read-iops": "/dev/a:5",
    "--device-write-iops": "/dev/a:5",
    "--name": "name",
    "--platform": "linux/amd64",
    "--cpu-period": "5000",
    "--cpu-quota": "5000",
    "--env-file": "vars",
    "--label-file": "vars",
    "--network": "net",
    "--cap-add": "CHOWN",
    "--hugepages": "2MB=64m",
}


@given(st.sets(st.sampled_from(sorted(FLAGS)), max_size=4), st.sets(st.sampled_from(sorted(VALUES)), max_size=6))
def test_any_options_together_make_a_stack(flags: set[str], values: set[str]) -> None:
    import tempfile

    line = " ".join(["docker run", *sorted(flags), *(f"{v}={VALUE.get(v, '5')}" for v in sorted(values)), "image", "cmd"])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vars").write_text("A=1\n")
        found = loaded(converted(line), Path(folder))
    assert found.stack.services[0].container.image == "image"


def test_a_mount_in_the_long_form_keeps_what_it_says() -> None:
    document = converted(
        "docker run --name a --mount type=bind,src=/a,dst=/b,ro,bind-propagation=rslave "
        "--mount source=v,destination=/c,volume-nocopy=true,volume-subpath=in,readonly=false "
        "--mount type=tmpfs,target=/t,tmpfs-mode=1777,colour=red i"
    )
    assert document.services["a"]["volumes"] == [
        {"type": "bind", "target": "/b", "source": "/a", "read_only": True, "bind": {"propagation": "rslave"}},
        {"type": "volume", "target": "/c", "source": "v", "read_only": False, "volume": {"nocopy": True, "subpath": "in"}},
        {"type": "tmpfs", "target": "/t", "tmpfs": {"mode": "1777"}},
    ]
    assert document.volumes == {"v": {"name": "v"}}
    assert "--mount has colour, which has no counterpart" in "\n".join(document.warnings)
