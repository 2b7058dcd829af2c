"""`pystack audit`: each rule sees what it is about, with its line; strict passes; SARIF and JSON for CI."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent import audit
from agent.paths import Paths
from agent.settings import Settings
from orchestrator.audit.finding import Finding
from orchestrator.audit.rules import RULES, examine
from orchestrator.stackfile.load import Options, load

CASES = {
    "4.1": "user: root",
    "4.5": "init: true",
    "4.6": "healthcheck: {disable: true}",
    "5.2": "security_opt: [apparmor=unconfined]",
    "5.3": "security_opt: [label=disable]",
    "5.4": "cap_add: [SYS_ADMIN]",
    "5.5": "privileged: true",
    "5.6": "volumes: ['/etc:/host/etc']",
    "5.8": "ports: ['127.0.0.1:22:22']",
    "5.10": "network_mode: host",
    "5.11": "init: true",
    "5.12": "init: true",
    "5.13": "read_only: false",
    "5.14": "ports: ['8080:80']",
    "5.15": "restart: always",
    "5.16": "pid: host",
    "5.17": "ipc: host",
    "5.18": "devices: [/dev/sda]",
    "5.20": "volumes: [{type: bind, source: /srv, target: /srv, bind: {propagation: rshared}}]",
    "5.21": "uts: host",
    "5.22": "security_opt: [seccomp=unconfined]",
    "5.25": "cgroup_parent: /mine",
    "5.26": "init: true",
    "5.28": "image: nginx:latest",
    "5.29": "init: true",
    "5.31": "userns_mode: host",
    "5.32": "volumes: ['/var/run/docker.sock:/var/run/docker.sock']",
}
GOOD = """
x-policy: {locked: true}
services:
  web:
    image: registry.example/web:1.2
    user: "1000"
    x-harden: strict
    mem_limit: 64m
    cpus: 0.5
    restart: on-failure:3
    healthcheck: {test: "true"}
    ports: ["127.0.0.1:8080:80"]
"""


def findings(folder: Path, text: str) -> list[Finding]:
    (folder / "stack.yml").write_text(text)
    loaded = load(Options(files=(str(folder / "stack.yml"),)), {})

    def place(service: str, key: str) -> str:
        return str(loaded.mark(("services", service, key)))

    return [f for s in loaded.stack.services for f in examine(s, loaded.stack.policy, place)]


def test_every_rule_has_a_case() -> None:
    assert [rule.number for rule in RULES] == list(CASES)


@pytest.mark.parametrize("number", CASES)
def test_a_rule_sees_what_it_is_about(number: str, tmp_path: Path) -> None:
    image = "" if "image:" in CASES[number] else "image: i:1\n    "
    found = [f for f in findings(tmp_path, f"services:\n  a:\n    {image}{CASES[number]}\n") if f.rule == number and not f.ok]
    assert found
    assert found[0].detail
    assert found[0].fix
    line = 3 if not image else 4
    key = CASES[number].partition(":")[0]
    if key != "init":
        assert found[0].where == f"{tmp_path}/stack.yml:{line}:5"


def test_a_service_that_is_hardened_passes(tmp_path: Path) -> None:
    found = findings(tmp_path, GOOD)
    assert [f for f in found if not f.ok] == []
    assert len(found) == len(RULES)


def test_the_default_passes_most(tmp_path: Path) -> None:
    found = findings(tmp_path, "services: {a: {image: 'i:1'}}")
    assert sum(f.ok for f in found) >= 17
    assert not [f for f in found if f.level == "error" and not f.ok]


def run(folder: Path, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "orchestrator", "-f", str(folder / "stack.yml"), "audit", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


def test_the_command_ends_as_bad_as_it_is_asked_to(tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text(GOOD)
    code, said = run(tmp_path, "--fail-on", "note")
    assert (code, said) == (0, f"{len(RULES)} of {len(RULES)} checks passed\n")
    (tmp_path / "stack.yml").write_text("services:\n  a:\n    image: i:1\n    privileged: true\n")
    code, said = run(tmp_path)
    assert code == 1
    assert "stack.yml:4:5" in said
    assert run(tmp_path, "--fail-on", "never")[0] == 0
    document: dict[str, Any] = json.loads(run(tmp_path, "--format", "json")[1])
    assert document["score"]["checked"] == len(RULES)
    assert {f["rule"] for f in document["findings"]} >= {"5.5", "5.13"}


def test_sarif_names_rule_place_and_level(tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text("services:\n  a:\n    image: i:1\n    privileged: true\n")
    log = json.loads(run(tmp_path, "--format", "sarif")[1])
    one = next(r for r in log["runs"][0]["results"] if r["ruleId"] == "CIS-Docker-5.5")
    assert log["version"] == "2.1.0"
    assert one["level"] == "error"
    place = one["locations"][0]["physicalLocation"]
    assert place["region"] == {"startLine": 4, "startColumn": 5}
    assert place["artifactLocation"]["uri"].endswith("stack.yml")
    assert {r["ruleId"] for r in log["runs"][0]["results"]} <= {r["id"] for r in log["runs"][0]["tool"]["driver"]["rules"]}


def test_a_node_finds_and_mends_permissions_of_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYSTACK_CONFIG", raising=False)
    paths = Paths(root=tmp_path, run=tmp_path / "run", tag="abcd")
    paths.keys.mkdir(mode=0o755)
    (paths.keys / "seal").write_bytes(b"k")
    (paths.keys / "seal").chmod(0o644)
    (tmp_path / "config.yml").write_text("")
    (tmp_path / "config.yml").chmod(0o666)
    secret = tmp_path / "others"
    secret.write_text("x")
    secret.chmod(0o644)
    (paths.keys / "link").symlink_to(secret)
    wrong = {f.target: f.detail for f in audit.examine(paths, Settings()) if not f.ok and f.rule == "3"}
    assert wrong[str(paths.keys / "seal")] == "its permissions are 644"
    assert wrong[str(tmp_path / "config.yml")] == "its permissions are 666"
    assert {*audit.fix(paths)} == {str(paths.keys), str(paths.keys / "seal"), str(tmp_path / "config.yml")}
    left = {f.target for f in audit.examine(paths, Settings()) if not f.ok and f.rule == "3"}
    assert left == {str(paths.keys / "link")}
    assert secret.stat().st_mode & 0o777 == 0o644  # where a link leads is not ours


def test_a_node_tells_what_its_settings_leave_open(tmp_path: Path) -> None:
    found = {f.rule: f.ok for f in audit.examine(Paths(root=tmp_path, run=tmp_path, tag="abcd"), Settings())}
    assert (found["2.9"], found["2.13"], found["4.5"]) == (False, False, False)
    better = Settings(userns="auto", log_max_size="10m")
    found = {f.rule: f.ok for f in audit.examine(Paths(root=tmp_path, run=tmp_path, tag="abcd"), better)}
    assert (found["2.9"], found["2.13"]) == (True, True)
