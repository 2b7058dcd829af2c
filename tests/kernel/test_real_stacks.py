"""Real stacks of the shared corpora, unmodified, on one node and on three; and that a plan leaves everything as it is.

Their images are stand-ins: one of busybox that runs whatever it is told as a long sleep, and answers every health check.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually
from tests.stacks.corpus import CORPORA, IMPOSSIBLE, files, furnished, image, lives, name_of, stand_in

pytestmark = [pytest.mark.long, pytest.mark.kernel]
WHOLE_LIVES = ("awesome-compose/flask", "awesome-compose/nextcloud-postgres", "compose-e2e/fixtures/network-test")
"""Stacks whose whole life is tried with every `make test`; `python -m tests.stacks` tries all of them."""
CGI = {
    "ping": "echo; echo pong from $(hostname)",
    "ask": "echo; wget -q -O - http://$QUERY_STRING:8080/cgi-bin/ping || echo nobody",
    "volume": "echo; cat /volumes/test_volume.txt",
    "register": "echo; echo $QUERY_STRING >> /tmp/clients; sort -u /tmp/clients | wc -l",
}


def _images(lab: Pystack) -> None:
    stand_in(lab)
    image(
        lab,
        "composespec/conformance-tests-server:latest",
        {"www": None, "www/cgi-bin": None, **{f"www/cgi-bin/{k}": f"#!/bin/sh\n{v}\n".encode() for k, v in CGI.items()}},
        {"Cmd": ["httpd", "-f", "-p", "8080", "-h", "/www"]},
    )
    loop = "while ! wget -q -O - http://server:8080/cgi-bin/register?$(hostname); do sleep 0.2; done; exec sleep 1000"
    image(lab, "composespec/conformance-tests-client:latest", {"etc/of": b"client"}, {"Cmd": ["sh", "-c", loop]})


@pytest.fixture(scope="module")
def three() -> Iterator[Pystack]:
    if not CORPORA.exists():
        pytest.skip("the shared corpora are not here")
    with cluster_of(3) as lab:
        _images(lab)
        yield lab


@pytest.fixture(scope="module")
def one() -> Iterator[Pystack]:
    if not CORPORA.exists():
        pytest.skip("the shared corpora are not here")
    with cluster_of(1) as lab:
        _images(lab)
        yield lab


def stacks() -> list[Any]:
    found = sorted(p for folder in ("awesome-compose", "voting-app") for p in (CORPORA / folder).glob("**/*compose*.y*ml"))
    return [pytest.param(p, id=str(p.relative_to(CORPORA))) for p in found] or [
        pytest.param(None, marks=pytest.mark.skip(reason="the shared corpora are not here"))
    ]


@pytest.mark.parametrize("file", stacks())
def test_real_stacks_run_on_three_nodes(three: Pystack, file: Path, tmp_path: Path) -> None:
    copy = furnished(file, tmp_path / file.parent.name, three)
    name = f"r{abs(hash(str(file))) % 10**8}"
    planned = json.loads(three("-f", str(copy), "plan", "-p", name, "--json", check=False).stdout or "{}")
    done = three("-f", str(copy), "up", "-p", name, check=False)
    try:
        if words := IMPOSSIBLE.get(name_of(file)):
            assert done.returncode == 1
            assert words in done.stderr
            return
        assert done.returncode == 0, done.stderr
        rows = json.loads(three("-f", str(copy), "ps", "-p", name, "--format", "json").stdout)
        assert {r["state"] for r in rows} == {"running"}
        wanted = {s["name"] for s in planned["steps"] if s["kind"] == "task"}
        assert {r["task"] for r in rows} == wanted
    finally:
        three("-f", str(copy), "down", "-p", name, "-v", "-t", "2")


@pytest.mark.parametrize("name", WHOLE_LIVES)
def test_a_second_up_finds_nothing_to_do_also_after_a_change(three: Pystack, name: str, tmp_path: Path) -> None:
    row = next(lives(three, [f for f in files() if name_of(f) == name], tmp_path))
    assert not row.problem
    assert row.tasks


@pytest.fixture(params=["one", "three"])
def cluster(request: pytest.FixtureRequest) -> Pystack:
    lab: Pystack = request.getfixturevalue(request.param)
    return lab


@pytest.fixture
def case(cluster: Pystack, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    """A conformance case of the specification, up."""
    made = Stack(cluster, tmp_path)
    shutil.copytree(CORPORA / "conformance-tests" / "tests" / str(request.param), tmp_path, dirs_exist_ok=True)
    made.file = tmp_path / "compose.yaml"
    made.up()
    yield made
    made.down()


def asked(case: Stack, path: str, node: int = 1) -> str:
    """What the service of the case says over HTTP, asked from the LAN."""
    found = ""

    def ask() -> None:
        nonlocal found
        url = f"http://10.99.0.{node}:8080/cgi-bin/{path}"
        found = case.pystack.on("outside", "curl", "-s", "-m", "5", url, check=False)
        assert found

    eventually(ask, 20)
    return found


@pytest.mark.parametrize("case", ["simple_lifecycle"], indirect=True)
def test_a_simple_life(case: Stack) -> None:
    assert {r["state"] for r in case.ps().values()} == {"running"}
    case.pystack("down", "-p", case.name)
    assert case.name not in case.pystack("ls").stdout
    assert case.name not in case.pystack("container", "ls", "-a").stdout


@pytest.mark.parametrize("case", ["simple_network"], indirect=True)
def test_a_name_leads_to_its_service_and_no_other_does(case: Stack) -> None:
    eventually(lambda: _pong(case))
    assert asked(case, "ask?notatarget") == "nobody\n"


def _pong(case: Stack) -> None:
    assert asked(case, "ask?target").startswith("pong from")


@pytest.mark.parametrize("case", ["simple_volume"], indirect=True)
def test_a_mounted_file_has_its_content(case: Stack) -> None:
    assert asked(case, "volume") == "MYVOLUME"


@pytest.mark.parametrize("case", ["scaling"], indirect=True)
def test_three_replicas_register(case: Stack) -> None:
    eventually(lambda: _three(case), 30)


def _three(case: Stack) -> None:
    assert int(asked(case, "register?outside")) == 4


def test_a_plan_touches_nothing(one: Pystack, tmp_path: Path) -> None:
    """The store, the kernel and the disk stand still while plans are made of a stack that runs and must change."""
    made = Stack(one, tmp_path)
    text = (
        "services:\n  a: {image: stand-in, ports: ['8088:80'], volumes: ['v:/v'], environment: {A: '%s'}}\nvolumes: {v: {}}\n"
    )
    made.up(text % "1")
    made.write(text % "2" + "networks: {more: {}}\n")
    root = one.environment["PYSTACK_ROOT"]

    def everything() -> dict[str, str]:
        """Names, sizes and times of all files, links, addresses, rules, mounts and cgroups."""

        def on(*words: str) -> str:
            return one.on("n1", *words)

        return {
            # what the client and the lab write themselves is not the server's doing
            "disk": on("find", root, "-xdev", "-not", "-name", "*.log", "-printf", "%p %s %T@ %i\n"),
            "run": on("find", f"{root}/run", "-printf", "%p %s %i\n"),
            "links": on("ip", "-br", "link"),
            "addresses": on("ip", "-br", "addr"),
            "routes": on("ip", "-4", "route", "show", "table", "all"),
            "rules": on("nft", "list", "ruleset"),
            "mounts": on("cat", f"/proc/{_server(one)}/mountinfo"),
            "cgroups": on("find", "/sys/fs/cgroup", "-type", "d"),
        }

    before = everything()
    try:
        revision = json.loads(made.run("plan", "--json").stdout)["revision"]
        for words in (("plan",), ("plan", "--exit-code"), ("up", "--dry-run"), ("plan", "--json"), ("config",)):
            made.run(*words, check=False)
        assert json.loads(made.run("plan", "--json").stdout)["revision"] == revision
        after = everything()
        assert {k: after[k].splitlines() for k in after} == {k: before[k].splitlines() for k in before}
    finally:
        made.down()


def _server(lab: Pystack) -> str:
    return lab.on("n1", "sh", "-c", f"cat {lab.environment['PYSTACK_ROOT']}/run/server.pid").strip()
