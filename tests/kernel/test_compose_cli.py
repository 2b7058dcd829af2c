"""`pystack compose`, and `docker-compose` as its other name: Docker Compose's own command lines on real containers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Pystack, eventually

pytestmark = pytest.mark.kernel
FILE = """
services:
  db:
    image: busybox
    command: sh -c "echo it begins; touch /ok; exec sleep 1000"
    stop_grace_period: 0s
    healthcheck: {test: test -e /ok, interval: 200ms, retries: 20}
  web:
    image: busybox
    command: sleep 1000
    stop_grace_period: 0s
    depends_on: {db: {condition: service_healthy}}
    ports: ["18755:80"]
    volumes: ["data:/data"]
  tests:
    image: busybox
    command: sh -c "echo tested; exit 7"
    profiles: [ci]
    depends_on: [web]
volumes: {data: {}}
"""


class DockerCompose:
    """A link called docker-compose, run in a folder with compose.yaml."""

    def __init__(self, lab: Pystack, folder: Path) -> None:
        self.folder, self.name = folder, f"c{uuid.uuid4().hex[:6]}"
        self.link = folder / "bin" / "docker-compose"
        self.link.parent.mkdir()
        self.link.symlink_to(Path(sys.executable).with_name("pystack"))
        (folder / "compose.yaml").write_text(FILE)
        self.environment = {**lab.environment, "COMPOSE_PROJECT_NAME": self.name}

    def __call__(self, *words: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(self.link), *words],
            capture_output=True,
            text=True,
            env={**self.environment, **more},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            timeout=90 * PATIENCE,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done


@pytest.fixture
def compose(lab: Pystack, tmp_path: Path) -> Iterator[DockerCompose]:
    made = DockerCompose(lab, tmp_path)
    yield made
    made("--profile", "*", "down", "-v")


def rows(compose: DockerCompose, *words: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in compose("ps", "--format", "json", *words).stdout.splitlines()]


def test_events_of_the_past_and_templates(compose: DockerCompose) -> None:
    compose("up", "-d", "db")
    compose("stop", "db")
    past = compose("events", "--json", "--since", "1h", "--until", "0s", "db").stdout.splitlines()
    found = [row["action"] for row in map(json.loads, past) if not row["action"].startswith(("exec_", "health_status"))]
    assert found[:2] == ["create", "start"]
    assert found[-1] == "stop"
    assert compose("events", "--since", "2000-01-01", "--until", "2000-01-02").stdout == ""
    template = r'table {{.Service}}\t{{if eq .State "exited"}}gone{{end}}'
    assert compose("ps", "-a", "--format", template).stdout.splitlines()[1].split() == ["db", "gone"]
    assert "there is no .Nope" in compose("ps", "-a", "--format", "{{.Nope}}", code=2).stderr


def test_nothing_is_built_for_a_service_that_is_not_there(compose: DockerCompose) -> None:
    (compose.folder / "compose.yml").write_text(
        "services: {a: {image: 'never:1', build: {dockerfile_inline: 'FROM nowhere'}}}\n"
    )
    for words in (("up", "-d", "nosuch"), ("create", "nosuch"), ("up", "-d", "--scale", "nosuch=2")):
        said = compose(*words, code=1).stderr
        assert "no such service: nosuch" in said
        assert "FROM" not in said


def test_the_way_of_a_script(compose: DockerCompose) -> None:
    said = compose("up", "-d", "--quiet-pull").stderr  # that is quiet of pulling alone
    for line in (
        "Network {}_default  Created",
        "Volume {}_data  Created",
        "Container {}-db-1  Healthy",
        "Container {}-web-1  Started",
    ):
        assert f" {line.format(compose.name)}\n" in said
    assert said.index("db-1  Healthy") < said.index("web-1  Started")
    assert said.index("web-1  Starting") < said.index("web-1  Started")
    assert "web-1  Waiting" not in said  # nothing waits for it
    assert compose("up", "-d", "--no-deps", "web").stderr == f" Container {compose.name}-web-1  Running\n"
    (db, web) = sorted(rows(compose), key=lambda row: str(row["Service"]))
    assert {k: db[k] for k in ("Name", "Service", "State", "Health", "ExitCode", "Publishers")} == {
        "Name": f"{compose.name}-db-1",
        "Service": "db",
        "State": "running",
        "Health": "healthy",
        "ExitCode": 0,
        "Publishers": [],
    }
    assert web["Publishers"] == [{"URL": "0.0.0.0", "TargetPort": 80, "PublishedPort": 18755, "Protocol": "tcp"}]
    assert len(compose("ps", "-q").stdout.split()) == 2
    assert compose("ps", "--format", "{{.Service}} {{.State}}", "web").stdout == "web running\n"
    assert compose("port", "web", "80").stdout == "0.0.0.0:18755\n"
    assert compose("exec", "-T", "web", "sh", "-c", "exit 3", code=3).stdout == ""
    assert compose("logs", "--no-log-prefix", "db").stdout == "it begins\n"
    (listed,) = [p for p in json.loads(compose("ls", "--format", "json").stdout) if p["Name"] == compose.name]
    assert listed["Status"] == "running(2)"
    compose("stop", "web")
    assert compose("ps", "--services").stdout == "db\n"
    assert sorted(compose("ps", "-a", "--services").stdout.split()) == ["db", "web"]
    assert [row["State"] for row in rows(compose, "-a", "--status", "exited")] == ["exited"]
    down = compose("down", "-v").stderr
    order = [down.index(f"{what}  Removed") for what in ("web-1", "db-1", "_default", "_data")]
    assert order == sorted(order)
    assert "No resource found to remove" in compose("down").stderr


def test_what_was_made_anew_on_demand_stays_and_is_said_to_run(compose: DockerCompose) -> None:
    compose("up", "-d", "db")
    first = rows(compose)[0]["ID"]
    compose("up", "-d", "--force-recreate", "db")
    second = rows(compose)[0]["ID"]
    assert second != first
    assert f" Container {compose.name}-db-1  Running\n" in compose("up", "-d", "db").stderr
    assert rows(compose)[0]["ID"] == second


def test_words_and_columns_that_scripts_read(compose: DockerCompose) -> None:
    compose("up", "-d", "db")
    (row,) = rows(compose)
    assert str(row["RunningFor"]).endswith(" ago")
    assert row["Command"] == '"sh -c \'echo it begi…"'
    assert "touch /ok" in str(rows(compose, "--no-trunc")[0]["Command"])
    assert compose("logs", "db").stdout == "db-1  | it begins\n"
    used = json.loads(compose("stats", "--no-stream", "--format", "json").stdout)
    assert used["Name"] == f"{compose.name}-db-1"
    assert used["CPUPerc"].endswith("%")
    assert "MiB / " in used["MemUsage"] or "KiB / " in used["MemUsage"]
    assert compose("top").stdout.split()[:3] == ["SERVICE", "#", "UID"]
    assert f" Container {compose.name}-db-1  Paused\n" in compose("pause").stderr
    assert " (Paused)" in str(rows(compose)[0]["Status"])
    assert f" Container {compose.name}-db-1  Unpaused\n" in compose("unpause").stderr
    assert "no such service: nope" in compose("logs", "nope", code=1).stderr
    assert 'service "db" is not running container #2' in compose("exec", "-T", "--index", "2", "db", "true", code=1).stderr
    assert "no port 99/tcp for container" in compose("port", "db", "99", code=1).stderr
    assert "No stopped containers" in compose("rm", "-f").stderr


def test_a_dry_run_says_what_would_be_done_and_does_nothing(compose: DockerCompose) -> None:
    said = compose("--dry-run", "up", "-d", "db").stderr
    for word in ("Created", "Started"):
        assert f" DRY-RUN MODE -  Container {compose.name}-db-1  {word}\n" in said
    assert "Started" not in compose("--dry-run", "create", "db").stderr
    assert rows(compose, "-a") == []
    compose("up", "-d", "db")
    for verb, word in (
        ("stop", "Stopped"),
        ("kill", "Killed"),
        ("restart", "Started"),
        ("pause", "Paused"),
        ("down", "Removed"),
    ):
        assert f" DRY-RUN MODE -  Container {compose.name}-db-1  {word}\n" in compose("--dry-run", verb).stderr
    assert f"Container {compose.name}-db-2  Created" in compose("--dry-run", "scale", "db=2").stderr
    assert "Image busybox  Pulled" in compose("--dry-run", "pull", COMPOSE_STATUS_STDOUT="1").stdout
    name = f"{compose.name}-db-1"
    said = compose("--dry-run", "exec", "-d", "db", "touch", "/made").stderr
    assert f' DRY-RUN MODE -  Execute command "touch /made" in "{name}" (detached mode)\n' in said
    assert "interactive exec is not supported in dry-run mode" in compose("--dry-run", "exec", "db", "true", code=1).stderr
    said = compose("--dry-run", "cp", "compose.yaml", "db:/made").stderr
    assert f" DRY-RUN MODE -  Container {name} copy compose.yaml to {name}:/made  Copied\n" in said
    assert "Started" in compose("--dry-run", "run", "-d", "db").stderr
    assert "interactive run is not supported in dry-run mode" in compose("--dry-run", "run", "db", code=1).stderr
    assert f"Container {name}  Committed" in compose("--dry-run", "commit", "db", "made").stderr
    assert f"Container {name}  Exported" in compose("--dry-run", "export", "-o", "made.tar", "db").stderr
    assert not (compose.folder / "made.tar").exists()
    compose("exec", "-T", "db", "test", "!", "-e", "/made")
    assert [row["State"] for row in rows(compose, "-a")] == ["running"]
    assert f"Container {name}  Stopped" in compose("stop", "--dry-run").stderr  # behind the verb too
    assert f"Container {name}  Stopped" in compose("alpha", "dry-run", "stop", "db").stderr
    assert "has no dry run" in compose("--dry-run", "help", code=2).stderr


def test_output_is_followed_over_restarts(compose: DockerCompose) -> None:
    text = "echo it begins; exec sleep 1000"
    (compose.folder / "compose.yaml").write_text(
        f"services: {{a: {{image: busybox, command: [sh, -c, '{text}'], stop_grace_period: 0s}}}}\n"
    )
    compose("up", "-d")
    process = subprocess.Popen(
        [str(compose.link), "logs", "-f", "--no-log-prefix"],
        stdout=subprocess.PIPE,
        text=True,
        env=compose.environment,
        cwd=compose.folder,
    )
    assert process.stdout
    try:
        for verb in ("restart", "up", "down"):
            assert process.stdout.readline() == "it begins\n"
            compose(verb, *(["-d", "--force-recreate"] if verb == "up" else []))
        assert process.wait(30 * PATIENCE) == 0
        assert process.stdout.read() == ""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_what_is_tried_out_there_and_options_of_old(compose: DockerCompose) -> None:
    drawn = compose("alpha", "viz", "--networks", "--ports", "--image", "--spaces", "--indentation-size", "3").stdout
    assert drawn.splitlines()[0] == f'digraph "{compose.name}" {{'
    assert '   "web" -> "db";' in drawn.splitlines()
    assert f"Networks:\\n{compose.name}_default\\n" in drawn
    assert "Ports:\\n18755:80/tcp" in drawn
    compose("alpha", "scale", "db=1")
    assert compose("run", "--rm", "--no-TTY", "--no-build", "--labels", "a=b", "--volumes", "/x", "db", "ls", "-d", "/x").stdout
    assert compose("exec", "--no-TTY", "db", "echo", "hello").stdout == "hello\n"
    compose("up", "-d", "--pull", "policy", "db")
    compose("pull", "--parallel", "--no-parallel", "nosuch", code=1)
    compose("--workdir", str(compose.folder), "--no-ansi", "--insecure-registry", "x", "ps")
    assert "--abort-on-container-exit" in compose("help", "up").stdout
    assert compose("help").stdout == compose("--help").stdout
    assert compose("config", "--services", "--filter", "profile=ci").stdout == ""
    assert compose("--profile", "ci", "config", "--services", "--filter", "profile=ci").stdout == "tests\n"
    assert "write profile=NAME" in compose("config", "--services", "--filter", "x=y", code=2).stderr


def test_the_exit_code_of_a_service_is_that_of_up(compose: DockerCompose) -> None:
    done = compose("--profile", "ci", "up", "--exit-code-from", "tests", "--no-color", code=7)
    for line in ("Attaching to", "tests-1  | tested\n", "tests-1 exited with code 7\n"):
        assert line in done.stdout
    assert rows(compose) == []
    assert "Aborting on container" in done.stderr


def test_an_up_that_detaches_waits_for_no_health_and_no_end(compose: DockerCompose) -> None:
    (compose.folder / "compose.yaml").write_text(
        "services:\n  bad: {image: busybox, command: 'false'}\n  sick:\n    image: busybox\n    command: sleep 1000\n"
        "    stop_grace_period: 0s\n    healthcheck: {test: 'false', interval: 100ms, retries: 2}\n"
    )
    compose("up", "-d")
    compose("up", "-d", "--wait", code=1)
    assert {row["Service"]: row["State"] for row in rows(compose, "-a")} == {"bad": "exited", "sick": "running"}


def test_run_publishes_and_before_the_verb_stand_the_files(compose: DockerCompose) -> None:
    assert compose("run", "--rm", "-p", "18756:80", "--no-deps", "web", "echo", "-p", "x").stdout == "-p x\n"
    (compose.folder / "other.yaml").write_text("services: {web: {labels: {a: '${A:-none}'}}}\n")
    (compose.folder / "my.env").write_text("A=from a file\n")
    shown = compose("-f", "compose.yaml", "-f", "other.yaml", "--env-file", "my.env", "config", "--format", "json").stdout
    assert json.loads(shown)["services"]["web"]["labels"] == {"a": "from a file"}
    for more in (
        {"COMPOSE_FILE": "compose.yaml:other.yaml", "COMPOSE_ENV_FILES": "my.env"},
        {"COMPOSE_FILE": "compose.yaml;other.yaml", "COMPOSE_PATH_SEPARATOR": ";", "A": "from a file"},
    ):
        shown = compose("config", "--format", "json", code=0, **more).stdout
        assert json.loads(shown)["services"]["web"]["labels"]["a"] == "from a file"
    assert compose("config", "--services", COMPOSE_PROFILES="ci").stdout.split() == ["db", "web", "tests"]
    assert [line.split()[0] for line in compose("config", "--hash", "db,web").stdout.splitlines()] == ["db", "web"]
    assert compose("version", "--short").stdout.startswith("2.")
    assert "bridge is refused" in compose("bridge", "x", code=2).stderr


def test_orphans_go_where_that_is_said(compose: DockerCompose) -> None:
    compose("up", "-d")
    (compose.folder / "compose.yaml").write_text("services: {db: {image: busybox, command: sleep 1000, stop_signal: KILL}}\n")
    assert "--remove-orphans" in compose("up", "-d").stderr
    assert {row["Service"] for row in rows(compose)} == {"db", "web"}
    assert {row["Service"] for row in rows(compose, "--no-orphans")} == {"db"}
    compose("up", "-d", COMPOSE_REMOVE_ORPHANS="1")
    assert {row["Service"] for row in rows(compose)} == {"db"}


def test_what_ended_well_runs_again_with_each_up(compose: DockerCompose) -> None:
    (compose.folder / "compose.yaml").write_text("services: {once: {image: busybox, command: echo it ran}}\n")
    for _ in range(2):
        said = compose("up", "--no-color").stdout.splitlines()
        assert said == ["Attaching to once-1", "once-1  | it ran", "once-1 exited with code 0"]
    compose("up", "-d")
    assert compose("wait", "once").stdout == "0\n"
    assert compose("logs", "--no-log-prefix").stdout == "it ran\n" * 3
    assert compose("start").stderr.count("Started") == 1


FAILING = """
services:
  bad: {image: busybox, command: sh -c "exit 7"}
  sick:
    image: busybox
    command: sleep 1000
    stop_grace_period: 0s
    healthcheck: {test: "false", interval: 100ms, retries: 2}
  after:
    image: busybox
    command: sleep 1000
    stop_grace_period: 0s
    depends_on: {bad: {condition: service_completed_successfully}}
  healthy: {image: busybox, command: sleep 1000, stop_grace_period: 0s, depends_on: {sick: {condition: service_healthy}}}
  other: {image: busybox, command: sleep 1000, stop_grace_period: 0s}
  optional:
    image: busybox
    command: sleep 1000
    stop_grace_period: 0s
    depends_on: {bad: {condition: service_completed_successfully, required: false}}
"""


def test_failures_of_others_are_none_of_a_service(compose: DockerCompose) -> None:
    (compose.folder / "compose.yaml").write_text(FAILING)
    name = compose.name
    assert 'service "bad" didn\'t complete successfully: exit 7\n' in compose("up", "-d", "after", code=1).stderr
    assert (
        f"dependency failed to start: container {name}-sick-1 is unhealthy\n" in compose("up", "-d", "healthy", code=1).stderr
    )
    said = compose("up", "-d", "--wait", "other").stderr
    assert f"Container {name}-other-1  Started" in said
    assert "sick" not in said
    compose("up", "-d", "optional")
    assert compose("run", "--rm", "optional", "echo", "it runs").stdout == "it runs\n"
    assert f"container {name}-bad-1 exited (7)\n" in compose("up", "-d", "--wait", "bad", code=1).stderr
    assert {str(row["Service"]) for row in rows(compose)} == {"sick", "other", "optional"}
    compose("start", "bad")
    compose("restart", "bad", "other")


def test_containers_say_which_project_they_are_of(compose: DockerCompose) -> None:
    (compose.folder / ".env").write_text("A=1\n")
    compose("up", "-d", "web")
    file = str(compose.folder / "compose.yaml")
    labels = dict(pair.split("=", 1) for pair in str(rows(compose, "web")[0]["Labels"]).split(","))
    found = {key.removeprefix("com.docker.compose."): value for key, value in labels.items()}
    assert (
        found.items()
        >= {
            "project": compose.name,
            "project.config_files": file,
            "project.working_dir": str(compose.folder),
            "project.environment_file": str(compose.folder / ".env"),
            "depends_on": "db:service_healthy:false",
            "service": "web",
            "version": compose("version", "--short").stdout.strip(),
        }.items()
    )
    assert {"Name": compose.name, "ConfigFiles": file}.items() <= json.loads(compose("ls", "--format", "json").stdout)[
        0
    ].items()
    for kind, name, key in (("network", "default", "default"), ("volume", "data", "data")):
        asked = [sys.executable, "-m", "orchestrator", kind, "inspect", f"{compose.name}_{name}"]
        told = subprocess.run(asked, capture_output=True, text=True, env=compose.environment, check=True)
        [one] = json.loads(told.stdout)
        found = {k.removeprefix("com.docker.compose."): v for k, v in one["Labels"].items()}
        assert found.keys() == {"project", kind, "version", "config-hash"}
        assert (found["project"], found[kind]) == (compose.name, key)
        assert re.fullmatch("[0-9a-f]{64}", found["config-hash"])
    assert "com.docker.compose.depends_on=," in str(rows(compose, "db")[0]["Labels"])
    assert "replace" not in found
    before = rows(compose)
    again = compose("--project-directory", str(compose.folder.parent), "-f", file, "up", "-d").stderr
    assert "Recreate" not in again
    assert [row["ID"] for row in rows(compose)] == [row["ID"] for row in before]
    compose("up", "-d", "--force-recreate", "--no-deps", "web")
    assert "com.docker.compose.replace=web-1," in str(rows(compose, "web")[0]["Labels"])


def test_what_is_replaced_is_named_as_the_file_does(compose: DockerCompose) -> None:
    for number in ("1", "2"):
        (compose.folder / "compose.yaml").write_text(
            "services: {a: {image: busybox, command: sleep 1000, stop_grace_period: 0s, "
            f"container_name: '{compose.name}-a', environment: {{NUMBER: {number}}}}}}}\n"
        )
        compose("up", "-d")
    assert f"com.docker.compose.replace={compose.name}-a," in str(rows(compose)[0]["Labels"])


def test_names_that_the_file_gives_and_those_of_old(compose: DockerCompose) -> None:
    (compose.folder / "compose.yaml").write_text(
        "x-common: &common {image: busybox, command: sh -c 'echo hi; exec sleep 1000', stop_grace_period: 0s}\n"
        f"services:\n  a: {{<<: *common, container_name: {compose.name}x}}\n  b: {{<<: *common, scale: 2}}\n"
    )
    said = compose("--compatibility", "up", "-d").stderr
    fixed, old = f"{compose.name}x", f"{compose.name}_b_2"
    for line in (f" Container {fixed}  Started\n", f" Container {old}  Started\n"):
        assert line in said
    assert {row["Name"] for row in rows(compose)} == {fixed, f"{compose.name}_b_1", old}
    assert "x  | hi\n" in compose("logs", "a").stdout
    assert compose("rm", "-fs", "a").stdout == f"Going to remove {fixed}\n"
    assert f" Container {old}  Removed\n" in compose("down").stderr


def test_progress_as_json_and_its_silence(compose: DockerCompose) -> None:
    lines = compose("--progress", "json", "up", "-d", "db").stderr.splitlines()
    assert {"id": f"Container {compose.name}-db-1", "status": "Started"} in map(json.loads, lines)
    assert compose("--progress", "quiet", "up", "-d", "--force-recreate", "db").stderr == ""
    said = compose("up", "-d", "--force-recreate", "db").stderr
    order = [said.index(f"db-1  {word}\n") for word in ("Recreate", "Recreated", "Started")]
    assert order == sorted(order)
    assert rows(compose, "--no-trunc")[0]["State"] == "running"
    assert '"State":"running"' in compose("ps", "--format", "json").stdout


def test_create_makes_and_starts_nothing_again_and_again(compose: DockerCompose) -> None:
    compose("create")
    assert {row["State"] for row in rows(compose, "-a")} == {"created"}
    assert "Started" not in compose("up", "--no-start").stderr
    compose("up", "-d", "db")
    compose("stop")
    assert "Started" not in compose("up", "--no-start").stderr
    assert {str(row["Service"]): row["State"] for row in rows(compose, "-a")} == {"db": "exited", "web": "created"}


def test_a_folder_with_files_of_both_kinds(compose: DockerCompose) -> None:
    (compose.folder / "stack.yml").write_text("services: {other: {image: busybox}}\n")
    assert compose("config", "--services").stdout.split() == ["db", "web"]
    (compose.folder / "compose.yaml").unlink()
    assert "no configuration file provided: not found" in compose("config", code=1).stderr
    (compose.folder / "compose.yaml").write_text(FILE)


def test_orphans_of_which_nothing_is_to_be_said(compose: DockerCompose) -> None:
    compose("up", "-d", "db")
    (compose.folder / "compose.yaml").write_text(
        "services: {other: {image: busybox, command: sleep 1000, stop_grace_period: 0s}}\n"
    )
    assert f"Found orphan containers ([{compose.name}-db-1]) for this project" in compose("up", "-d").stderr
    assert "orphan" not in compose("up", "-d", COMPOSE_IGNORE_ORPHANS="1").stderr
    assert "exclude each other" in compose("up", "-d", "--remove-orphans", code=2, COMPOSE_IGNORE_ORPHANS="1").stderr


def test_a_container_of_run_has_the_check_and_the_name_of_its_service(compose: DockerCompose) -> None:
    ident = compose("run", "-d", "db").stdout.strip()
    assert len(ident) == 64
    eventually(lambda: _is_healthy(compose))
    (one,) = rows(compose, "-a")
    assert re.fullmatch(f"{compose.name}-db-run-[0-9a-f]{{12}}", str(one["Name"]))
    slug = re.search("com.docker.compose.slug=([0-9a-f]{64})", str(one["Labels"]))
    assert slug
    assert str(one["Name"]).endswith(slug[1][:12])


def _is_healthy(compose: DockerCompose) -> None:
    assert [row["Health"] for row in rows(compose, "-a")] == ["healthy"]


def test_images_that_were_built_go_with_down(compose: DockerCompose) -> None:
    inline = "build: {dockerfile_inline: 'FROM busybox\\nRUN echo a step'}"
    (compose.folder / "compose.yaml").write_text(
        f"services:\n  own: {{{inline}}}\n  named: {{{inline}, image: '{compose.name}kept'}}\n".replace(
            "'FROM", '"FROM'
        ).replace("step'", 'step"')
    )
    built = compose("build")
    assert "RUN echo a step" in built.stdout
    pystack = [sys.executable, "-m", "orchestrator"]
    for image, service in ((f"{compose.name}-own", "own"), (f"{compose.name}kept", "named")):
        asked = [*pystack, "image", "inspect", image]
        [seen] = json.loads(subprocess.run(asked, capture_output=True, env=compose.environment, check=True).stdout)
        assert {k.removeprefix("com.docker.compose."): v for k, v in seen["Config"]["Labels"].items()} == {
            "project": compose.name,
            "service": service,
            "version": compose("version", "--short").stdout.strip(),
        }
    # a container that is made of it by hand is none of the project
    alone = f"{compose.name}alone"
    subprocess.run(
        [*pystack, "container", "run", "-d", "--name", alone, seen["Id"], "true"], env=compose.environment, check=True
    )
    asked = [*pystack, "container", "inspect", alone]
    [seen] = json.loads(subprocess.run(asked, capture_output=True, env=compose.environment, check=True).stdout)
    assert not [key for key in seen["Config"]["Labels"] or {} if key.startswith("com.docker.compose.")]
    subprocess.run([*pystack, "container", "rm", "-f", alone], env=compose.environment, check=True)
    assert f" Image {compose.name}-own  Built\n" in built.stderr
    assert f" Image {compose.name}-own  Removed\n" in compose("down", "--rmi", "local").stderr
    assert f" Image {compose.name}kept  Removed\n" in compose("down", "--rmi", "all").stderr


def test_services_that_a_profile_leaves_out_are_no_orphans(compose: DockerCompose) -> None:
    compose("--profile", "ci", "up", "-d", "tests")
    assert "orphan" not in compose("up", "-d", "--remove-orphans").stderr
    assert {row["Service"] for row in rows(compose, "-a", "--no-orphans")} == {"db", "web", "tests"}


def test_refusals_in_the_words_of_docker_compose(compose: DockerCompose) -> None:
    compose("up", "-d", "db")
    compose("stop", "db")
    assert 'service "db" is not running' in compose("exec", "-T", "db", "true", code=1).stderr
    (compose.folder / "compose.yaml").write_text("services: {}\n")
    assert "no service selected" in compose("up", "-d", code=1).stderr
    compose("--all-resources", "up", "-d")
    named = "services: {a: {image: busybox, container_name: one, command: sleep 1000, environment: {N: 1.0, E: '${NOPE}'}}}\n"
    (compose.folder / "compose.yaml").write_text(named)
    assert "cannot share the name of container_name" in compose("up", "-d", "--scale", "a=2", code=1).stderr
    shown = compose("config", "--format", "json")
    assert json.loads(shown.stdout)["services"]["a"]["environment"] == {"N": "1", "E": ""}
    assert 'The "NOPE" variable is not set' in shown.stderr


def test_down_of_one_service_and_the_first_replica_that_runs(compose: DockerCompose) -> None:
    (compose.folder / "compose.yaml").write_text(
        "services:\n  a: {image: busybox, command: sleep 1000, stop_grace_period: 0s, scale: 2}\n"
        "  b: {image: busybox, command: sleep 1000, stop_grace_period: 0s}\n"
    )
    compose("up", "-d")
    first = next(row for row in rows(compose, "a") if str(row["Name"]).endswith("-a-1"))
    subprocess.run(["docker", "kill", str(first["ID"])], env=engine(compose), check=True, capture_output=True)
    assert compose("exec", "-T", "a", "hostname").stdout.strip() != str(first["ID"])
    assert 'service "a" is not running' in compose("exec", "-T", "--index", "1", "a", "true", code=1).stderr
    assert f" Container {compose.name}-b-1  Removed\n" in compose("down", "b").stderr
    assert {row["Service"] for row in rows(compose, "-a")} == {"a"}


def engine(compose: DockerCompose) -> dict[str, str]:
    """The environment in which Docker's clients find the node."""
    return {**compose.environment, "DOCKER_HOST": f"unix://{compose.environment['PYSTACK_ROOT']}/run/docker.sock"}


@pytest.mark.parametrize(
    "verb", ["top", "stats --no-stream", "logs", "kill", "rm -f", "stop", "pause", "unpause", "ps", "volumes", "down"]
)
def test_a_service_of_the_file_that_was_never_up_is_nothing_to_do(compose: DockerCompose, verb: str) -> None:
    compose(*verb.split(), "web")
    if verb not in ("top", "stats --no-stream", "logs", "down"):
        return
    assert "no such service: nosuch" in compose(*verb.split(), "nosuch", code=1).stderr


def test_what_ended_is_removed_with_one_off_containers_and_is_nothing_to_kill(compose: DockerCompose) -> None:
    compose("up", "-d", "db")
    once = compose("run", "-d", "-T", "db", "true").stdout.strip()
    eventually(lambda: _has_ended(compose, once))
    assert {str(line).split()[0] for line in compose("images").stdout.splitlines()[1:]} >= {f"{compose.name}-db-1"}
    assert len(compose("images").stdout.splitlines()) == 3
    compose("stop", "db")
    assert compose("kill", "db").stderr == "No container to kill\n"
    assert compose("pause", "db").stderr == ""
    assert 'service "db" is not running container #7' in compose("logs", "--index", "7", "db", code=1).stderr
    assert "--index is of one service" in compose("logs", "--index", "1", code=2).stderr
    removed = compose("rm", "-f")
    assert re.fullmatch(f"Going to remove {compose.name}-db-1, {compose.name}-db-run-[0-9a-f]{{12}}\n", removed.stdout)
    assert "Stop" not in removed.stderr
    assert f" Container {compose.name}-db-1  Removed\n" in removed.stderr
    assert rows(compose, "-a") == []


def _has_ended(compose: DockerCompose, ident: str) -> None:
    assert [row["State"] for row in rows(compose, "-a") if ident.startswith(str(row["ID"]))] == ["exited"]


def test_what_no_service_that_is_brought_up_uses_is_not_made(compose: DockerCompose) -> None:
    (compose.folder / "compose.yaml").write_text(
        "x-common: &common {image: busybox, command: sleep 1000, stop_grace_period: 0s}\n"
        "services:\n"
        "  a: {<<: *common, networks: [one], volumes: ['da:/d']}\n"
        "  b: {<<: *common, networks: [two], volumes: ['db:/d']}\n"
        "networks: {one: {}, two: {}, unused: {}}\n"
        "volumes: {da: {}, db: {}, unused: {}}\n"
    )
    said = compose("up", "-d", "b").stderr
    assert "_two  Created" in said
    assert "_db  Created" in said
    assert "_one" not in said
    assert "_da" not in said
    later = compose("up", "-d").stderr
    assert "_one  Created" in later
    assert "_da  Created" in later
    assert "unused" not in said + later
    everything = compose("--all-resources", "up", "-d").stderr
    assert "Network " + compose.name + "_unused  Created" in everything
    assert "Volume " + compose.name + "_unused  Created" in everything
