"""Docker Compose's own end-to-end scenarios, read in place from the shared corpora: what each intends holds here.

The images that they name are stand-ins of busybox under their names; Dockerfiles and programs that the corpus leaves out are
made here. What a scenario shows is what its outcome in compose-e2e.json says.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.conftest import PATIENCE, SHARED, Pystack, cluster_of, eventually
from tests.images import archive, busybox_rootfs, tar_of

pytestmark = [pytest.mark.long, pytest.mark.kernel]
CORPUS = SHARED / "corpora" / "compose-e2e"
INDEX = SHARED / "corpora" / "compose-e2e.json"
NEED_A_HUB = {
    "TestConvertAndTransformList": "its output is that of a transformer image of Docker's",
    "TestConvertBuildOnlyService": "the same",
    "TestLoggingDriver": "fluentd's image; and it is no logging driver here, which is said with the line",
    "TestPullRefreshWindowExplicitPull": "tests/kernel/test_registry.py shows it on a registry of its own",
    "TestPullImagePresentLocally": "the same",
}
LEFT_OUT: dict[str, str] = {}
SHOWN: set[str] = set()
F = TypeVar("F", bound=Callable[..., Any])


def of(*scenarios: str) -> Callable[[F], F]:
    SHOWN.update(scenarios)
    return pytest.mark.parametrize("scenario", scenarios, indirect=True, ids=lambda s: str(s).removeprefix("Test"))


class Scenario:
    """A copy of a scenario's folder, and `pystack -f FILE -p NAME` in it."""

    def __init__(self, lab: Pystack, name: str, folder: Path) -> None:
        self.lab, self.name, self.folder = lab, name, folder
        self.file = "compose.yaml"
        self.environment = dict(lab.environment)

    def __call__(
        self, words: str, *more: str, code: int = 0, cwd: Path | None = None, compose: bool = False, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        file = [*(["compose"] if compose else []), *(["-f", self.file] if self.file else [])]
        command = [sys.executable, "-m", "orchestrator", *file, "-p", self.name, *words.split(), *more]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=cwd or self.folder,
            input=stdin,
            timeout=90 * PATIENCE,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def states(self) -> dict[str, str]:
        rows = json.loads(self("ps --format json").stdout)
        return {row["task"].removeprefix(f"{self.name}-"): row["state"] for row in rows}

    def ids(self) -> dict[str, str]:
        return {row["task"].removeprefix(f"{self.name}-"): row["id"] for row in json.loads(self("ps --format json").stdout)}

    def inspected(self, task: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.lab("container", "inspect", f"{self.name}-{task}").stdout)[0]
        return found

    def dockerfile(self, text: str, folder: str = ".") -> None:
        (self.folder / folder).mkdir(parents=True, exist_ok=True)
        (self.folder / folder / "Dockerfile").write_text(text)


@pytest.fixture(scope="module")
def hub() -> Iterator[Pystack]:
    """A lab whose node has what the scenarios would pull."""
    if not INDEX.exists():
        pytest.skip("the shared corpora are not here")
    with cluster_of(1) as lab:
        base = busybox_rootfs()
        extra: dict[str, bytes | str | None] = {
            "bin/bash": "busybox",
            "usr/bin/true": "/bin/busybox",
            "bin/curl": b"#!/bin/sh\nfor a; do u=$a; done\nexec wget -q -O - $u\n",
        }
        archive_at = Path(lab.environment["PYSTACK_ROOT"]) / "image.tar"
        page = tar_of({**extra, "usr/share/nginx/html/index.html": b"Welcome to nginx\n"})
        serve = {"Cmd": ["httpd", "-f", "-p", "80", "-h", "/usr/share/nginx/html"]}
        for name, layer, config, more in (
            ("alpine:latest", tar_of(extra), {"Cmd": ["sh"]}, ("alpine:3.20", "alpine:3.22", "bash", "hello-world")),
            (
                "nginx:latest",
                page,
                serve,
                ("nginx:alpine", "gtardif/sentences-web", "gtardif/sentences-db", "gtardif/sentences-api"),
            ),
            ("mariadb:latest", tar_of({"etc/of": b"mariadb"}), {"Cmd": ["sleep", "1000"]}, ()),
        ):
            archive(archive_at, [base, layer], name=f"docker.io/library/{name}", config=config)
            lab("image", "load", "-i", str(archive_at))
            for other in more:
                lab("image", "tag", name, other)
        yield lab


@pytest.fixture
def scenario(request: pytest.FixtureRequest, hub: Pystack, tmp_path: Path) -> Iterator[Scenario]:
    name = str(request.param)
    source = CORPUS / "testdata" / name
    folder = tmp_path / "project"
    shutil.copytree(source if source.exists() else CORPUS / "fixtures", folder)
    made = Scenario(hub, re.sub(r"[^a-z]", "", name.lower())[4:24], folder)
    yield made
    hub("down", "-p", made.name, "-v", "-t", "0", check=False)


# --- building --------------------------------------------------------------------------------------------------------


@of("TestBuildTags")
def test_every_tag_of_a_build_is_there(scenario: Scenario) -> None:
    scenario.environment["TAG_IMAGE"] = "tagged"
    scenario.dockerfile("FROM alpine\n")
    scenario("build --no-cache")
    for name in ("tagged", "docker.io/docker/tagged:1.0.0", "tagged-other:v1.0.0"):
        scenario.lab("image", "inspect", name)
        scenario.lab("image", "rm", name)


@of("TestBuildDependentImage", "TestBuildSubDependencies")
def test_images_of_services_are_built_before_those_that_use_them(scenario: Scenario) -> None:
    two = "firstbuild" in (scenario.folder / "compose.yaml").read_text()
    for service in ("firstbuild", "secondbuild") if two else ("main",):
        said = scenario(f"build {service}").stderr
        built = re.findall(rf"^build {scenario.name}-(\w+)", said, re.M)
        assert built[-1] == service
        assert len(built) > 1
    assert "Hello from" in scenario(f"run --rm {service}").stdout


@of("TestBuildLongOutputLine")
def test_a_flood_of_the_builder_breaks_nothing(scenario: Scenario) -> None:
    scenario.dockerfile("FROM alpine\nRUN i=0; while [ $i -lt 3000 ]; do echo a long line of warnings $i; i=$((i+1)); done\n")
    scenario("build long-line")
    scenario("up --build long-line")


@of("TestBuildDependentImageWithProfile")
def test_a_build_secret_is_there_for_run_and_not_in_the_image(scenario: Scenario) -> None:
    scenario.dockerfile(
        "FROM alpine\nCOPY . /all\n"
        "RUN --mount=type=secret,id=test-secret sha256sum < /run/secrets/test-secret > /seen\nCMD cat /seen\n"
    )
    scenario("build secret-build-test")
    import hashlib

    want = hashlib.sha256((scenario.folder / "test-secret.txt").read_bytes()).hexdigest()
    assert want in scenario("run --rm secret-build-test").stdout
    assert ".pystack-build" not in scenario("run --rm secret-build-test ls -a /all").stdout


@of("TestUpBuildUnchangedContext")
def test_the_same_context_built_again_is_the_same_container(scenario: Scenario) -> None:
    scenario.dockerfile("FROM alpine\nCOPY compose.yaml /\nCMD sleep 1000\n")
    scenario("up -d --build")
    before = scenario.ids()
    scenario("up -d --build")
    assert scenario.ids() == before


@of("TestRunBuildOnceDependency", "TestRunBuildOnceNestedDependencies")
def test_run_builds_what_it_needs_once(scenario: Scenario) -> None:
    nested = "api" in (scenario.folder / "compose.yaml").read_text()
    done = scenario("--verbose run --build --rm", "app" if nested else "curl")
    built = re.findall(rf"^build {scenario.name}-(\w+)", done.stderr, re.M)
    assert sorted(built) == (["api", "app", "db"] if nested else ["nginx"])
    assert done.stdout == ("App running\n" if nested else "curl service\n")


@of("TestUpWithBuildDependencies")
def test_what_is_built_can_be_used_by_another(scenario: Scenario) -> None:
    scenario.environment["BUILT_IMAGE"] = f"{scenario.name}-built"
    scenario.dockerfile("FROM alpine\nCMD echo built\n")
    scenario("up -d")
    assert scenario("logs bar").stdout.endswith("| built\n")


# --- the environment -------------------------------------------------------------------------------------------------


@of("TestEnvPriorityComposeEnvironment")
def test_variables_of_the_shell_win(scenario: Scenario) -> None:
    scenario.dockerfile("FROM alpine\nENV WHEREAMI=Dockerfile\nCMD echo $WHEREAMI\n")
    scenario.environment["WHEREAMI"] = "shell"
    for given in ("WHEREAMI", "WHEREAMI=shell"):
        assert scenario(f"--env-file .env.override run --rm -e {given} env-compose-priority").stdout == "shell\n"


@of("TestEnvInterpolationDefaultValue")
def test_a_variable_of_dotenv_is_shown(scenario: Scenario) -> None:
    assert "IMAGE: default_env:EnvFileDefaultValue" in scenario("config").stdout


@of("TestCommentsInEnvFile")
def test_comments_in_dotenv(scenario: Scenario) -> None:
    scenario.dockerfile("FROM alpine\nCMD echo $COMMENT; echo $NO_COMMENT\n")
    scenario("build")
    (scenario.folder / ".env").write_text('COMMENT=1234 #5\nNO_COMMENT="1234#5"\n')
    assert scenario("run --rm -e COMMENT -e NO_COMMENT env-file-comments").stdout.split() == ["1234", "1234#5"]


@of("TestRawEnvFile")
def test_a_raw_env_file_is_taken_as_it_is(scenario: Scenario) -> None:
    assert scenario("run test").stdout == '\'{"key": "value"}\'\n'


@of("TestNestedDotEnv")
def test_the_nearer_dotenv_wins(scenario: Scenario) -> None:
    folder = scenario.folder / "nested"
    (folder / ".env").write_text("ROOT=root\nWIN=root\n")
    (folder / "sub" / ".env").write_text("SUB=sub\nWIN=sub\n")
    scenario.file = ""
    assert scenario("run echo", cwd=folder).stdout == "root win=root\n"
    assert scenario("run echo", cwd=folder / "sub").stdout == "root sub win=sub\n"


@of("TestComposeFileSetByDotEnv", "TestComposeFileSetByProjectDirectory")
def test_dotenv_says_which_files_are_read(scenario: Scenario) -> None:
    inner = scenario.folder / "dotenv" / "development"
    inner.mkdir(parents=True)
    (inner / "compose.yaml").write_text("services: {backend: {image: 'backend:${TAG}'}}\n")
    (inner / "more.yaml").write_text("services: {test: {profiles: [test], image: '${TEST_IMAGE}'}}\n")
    (inner / ".env").write_text("TAG=latest\n")
    top = scenario.folder / "dotenv"
    (top / ".env").write_text(
        "COMPOSE_FILE=development/compose.yaml:development/more.yaml\nTAG=latest\n"
        "TEST_IMAGE=enabled:profile\nCOMPOSE_PROFILES=test\n"
    )
    scenario.file = ""
    said = scenario("config", cwd=top).stdout
    assert "image: backend:latest" in said
    assert "image: enabled:profile" in said
    assert "image: backend:latest" in scenario(f"--project-directory {inner} config").stdout


@of("TestConfigFromEnv")
def test_configs_from_files_variables_and_text(scenario: Scenario) -> None:
    scenario.environment["CONFIG"] = "config"
    said = [scenario(f"run {name}").stdout.strip() for name in ("from_file", "from_env", "inlined", "target")]
    assert said == [(scenario.folder / "config.txt").read_text().strip(), "config", "This is my config", "This is my config"]


@of("TestSecretFromEnv")
def test_a_secret_from_a_variable_of_an_included_file(scenario: Scenario) -> None:
    scenario.environment["SECRET"] = "BAR"
    assert scenario("run foo").stdout.strip() == "BAR"
    assert re.match(r"-r--r----- +1 1005 +1005", scenario("run foo ls -al /run/secrets/bar").stdout)


# --- the file --------------------------------------------------------------------------------------------------------


@of("TestConfig")
def test_the_normal_form_has_the_whole_path(scenario: Scenario) -> None:
    said = scenario("config").stdout
    assert f"context: {scenario.folder}/nginx-build" in said
    assert f"name: {scenario.name}_default" in said


@of("TestLocalComposeConfig")
def test_config_in_its_forms(scenario: Scenario) -> None:
    assert "published: '8080'" in scenario("config").stdout
    assert json.loads(scenario("config --format json").stdout)["services"]["test"]["ports"][0]["target"] == 80
    for words in ("config --no-interpolate", "config --no-interpolate test"):
        assert "${PORT:-8080}:80" in scenario(words).stdout
    want = {"PORT": {"name": "PORT", "required": False, "default": "8080", "alternate": ""}}
    assert json.loads(scenario("config --variables --format json").stdout) == want
    assert "PORT" in scenario("config --variables test").stdout
    assert scenario("config --services").stdout == "test\n"
    assert scenario("config --images").stdout == "test\n"


@of("TestUnnecessaryResources")
def test_a_network_that_is_missing_concerns_its_users(scenario: Scenario) -> None:
    assert "foo_bar" in scenario("up -d", code=1).stderr
    scenario("up -d test")
    assert scenario.states() == {"test-1": "running"}


@of("TestUpWithAllResources")
def test_what_no_service_uses_is_made_where_that_is_asked_for(scenario: Scenario) -> None:
    scenario("--all-resources up")
    assert f"{scenario.name}_my_net" in scenario.lab("network", "ls").stdout
    assert f"{scenario.name}_my_vol" in json.dumps(scenario.lab.json("volume", "ls", "--format", "json"))


@of("TestExposeRange", "TestUpRecreateVolumesIgnoreBinds")
def test_up_twice_changes_nothing(scenario: Scenario) -> None:
    scenario("up -d")
    before = scenario.ids()
    scenario("up -d")
    assert scenario.ids() == before


@of("TestUpIdempotentContainerdStore")
def test_a_second_up_replaces_nothing(scenario: Scenario) -> None:
    scenario("up -d")
    before = scenario.ids()
    assert scenario("up -d").stderr == ""
    assert scenario.ids() == before


@of("TestCreateIdempotentDefaultPlatform")
def test_a_second_create_makes_nothing(scenario: Scenario) -> None:
    scenario("create")
    before = scenario.ids()
    assert scenario("create").stderr == ""
    assert scenario.ids() == before


@of("TestCreateLocalMultiPlatformImage")
def test_an_image_that_is_there_is_not_pulled(scenario: Scenario) -> None:
    scenario.lab("image", "tag", "alpine", "compose-e2e-multiplatform-local-only:v1")
    scenario.environment["REQUESTED_PLATFORM"] = "linux/amd64" if os.uname().machine == "x86_64" else "linux/arm64"
    scenario("create")


@of("TestUpDryRunMissingImage")
def test_a_dry_run_needs_no_image(scenario: Scenario) -> None:
    file = scenario.folder / "compose.yaml"
    file.write_text(file.read_text().replace("alpine:3.20", "nowhere.invalid/never:1"))
    assert "create task" in scenario("--dry-run up -d").stdout
    assert scenario.lab("ls", "-q").stdout.split().count(scenario.name) == 0


@of("TestUpContainerNameConflict")
def test_two_services_cannot_have_one_container_name(scenario: Scenario) -> None:
    scenario.environment["FIXED_NAME"] = "the-only-one"
    scenario("up", code=1)
    for service in ("test", "another_test"):
        scenario("down")
        scenario(f"up {service}")


# --- networks --------------------------------------------------------------------------------------------------------


@of("TestNetworks")
def test_networks_of_several_services(scenario: Scenario) -> None:
    scenario.file = "network-test/compose.yaml"
    scenario("down -t0 -v")
    scenario("up -d")
    assert scenario("port words 8080").stdout.startswith("0.0.0.0:")
    assert "closenamenet-2" in scenario.lab("network", "ls").stdout
    scenario("down -t0 -v")
    assert "microservices" not in scenario.lab("network", "ls").stdout


@of("TestNetworkAliases")
def test_aliases_and_links_lead_to_the_service(scenario: Scenario) -> None:
    scenario("up -d")
    for name in ("alias-of-container2", "container"):
        eventually(partial(_serves, scenario, name))


def _serves(scenario: Scenario, name: str) -> None:
    assert "nginx" in scenario(f"exec -T container1 curl http://{name}/").stdout


@of("TestIPAMConfig", "TestMacAddress")
def test_addresses_are_as_the_file_says(scenario: Scenario) -> None:
    scenario("up -d")
    task = next(iter(scenario.ids()))
    network = scenario.inspected(task)["NetworkSettings"]["Networks"][f"{scenario.name}_default"]
    wanted = {"IPAddress": "10.1.0.100"} if task == "foo-1" else {"MacAddress": "00:e0:84:35:d0:e8"}
    assert wanted.items() <= network.items()


@of("TestInterfaceName")
def test_the_interface_has_its_name(scenario: Scenario) -> None:
    assert "foobar@" in scenario("run test").stdout


@of("TestNoDepsNetworkMode")
def test_a_namespace_whose_owner_is_gone(scenario: Scenario) -> None:
    scenario("up -d")
    scenario("up --no-deps -d app")
    scenario("rm -sf db")
    scenario("up --no-deps -d --force-recreate app", code=1)


# --- hooks and providers ---------------------------------------------------------------------------------------------


@of("TestPreStopHookSuccessWithPreviousStop")
def test_one_with_a_hook_stops_alone(scenario: Scenario) -> None:
    scenario("up -d")
    scenario("stop sample")
    assert scenario.states() == {"sample-1": "exited", "test-1": "running"}


@of("TestPostStartAndPreStopHook")
def test_hooks_of_both_kinds(scenario: Scenario) -> None:
    scenario("up -d")
    assert set(scenario.states().values()) == {"running"}


@of("TestPreStartHookSuccess")
def test_what_runs_before_prepares_the_volume(scenario: Scenario) -> None:
    scenario("up -d --wait")
    eventually(lambda: _logs(scenario, "initialized"))


def _logs(scenario: Scenario, want: str) -> None:
    assert scenario("logs sample").stdout.endswith(f"| {want}\n")


@of("TestPreStartHookBuildInheritance")
def test_what_runs_before_has_the_services_image(scenario: Scenario) -> None:
    scenario.dockerfile(
        "FROM alpine\nRUN printf '#!/bin/sh\\necho from the image\\n' > /bin/built-marker; chmod +x /bin/built-marker\n"
    )
    scenario("up -d --wait")
    eventually(lambda: _logs(scenario, "from the image"))


@of("TestPreStartHookMidSequenceFailure")
def test_the_hook_that_fails_is_named(scenario: Scenario) -> None:
    said = scenario("up -d", code=1).stderr
    assert "sample-pre_start-1-1: exited with 17" in said
    assert scenario.states()["sample-pre_start-0-1"] == "exited"
    assert scenario.states()["sample-1"] != "running"


@of("TestPreStartHookSequentialOrder", "TestPreStartHookNotReRunOnScaleUp")
def test_hooks_run_in_turn_and_once(scenario: Scenario) -> None:
    scenario("up -d --wait")
    before = scenario("exec -T sample sh -c", "cat /shared/*").stdout
    scenario("up -d --scale sample=2 --wait")
    assert scenario("exec -T sample sh -c", "cat /shared/*").stdout == before
    assert before.split() == ["A", "B"] or len(before.split()) == 1


PROVIDER = """#!/bin/sh
case "$*" in *" up "*) ;; *) exit 0;; esac
for name; do :; done
echo '{"type": "info", "message": "creating it"}'
echo '{"type": "setenv", "message": "URL=https://magic.cloud/'$name'"}'
echo '{"type": "rawsetenv", "message": "CLOUD_REGION=us-east-1"}'
"""


@of("TestDependsOnMultipleProviders", "TestProviderRawSetEnvOverridesUserEnv", "TestProviderRawSetEnvOverridesInheritedEnv")
def test_providers_give_variables(scenario: Scenario, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "example-provider"
    program.parent.mkdir()
    program.write_text(PROVIDER)
    program.chmod(0o755)
    scenario.environment |= {"PATH": f"{program.parent}:{os.environ['PATH']}", "CLOUD_REGION": "of the shell"}
    several = "provider1" in (scenario.folder / "compose.yaml").read_text()
    said = scenario("up").stderr
    env = scenario("logs test").stdout
    for name in ("provider1", "provider2") if several else ("secrets",):
        assert f"{name.upper()}_URL=https://magic.cloud/{name}" in env
    assert "CLOUD_REGION=us-east-1" in env
    assert ("warning: " in said) is not several
    scenario("down")


def test_a_provider_that_is_missing_or_fails_is_said(hub: Pystack, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services:\n  a: {image: alpine, depends_on: [b]}\n  b:\n    provider: {type: no-such-provider}\n"
    )
    one = Scenario(hub, "missingprovider", tmp_path)
    assert "compose.yaml:3:3: services.b.provider: there is no program" in one("up", code=1).stderr
    program = tmp_path / "no-such-provider"
    program.write_text('#!/bin/sh\necho \'{"type": "error", "message": "no quota"}\'\nexit 3\n')
    program.chmod(0o755)
    one.environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    assert "provider no-such-provider: no quota" in one("up", code=1).stderr
    assert one.lab("ls", "-q").stdout.split().count("missingprovider") == 0


# --- run -------------------------------------------------------------------------------------------------------------


@of("TestComposeRunDeps")
def test_run_starts_what_it_needs(scenario: Scenario) -> None:
    assert scenario("run service_a").stdout == "a\n"
    assert "shared_dep-1" in scenario.states()
    assert "service_b-1" not in scenario.states()
    before = scenario.ids()["shared_dep-1"]
    scenario("run --no-deps service_a")
    assert scenario.ids()["shared_dep-1"] == before


@of("TestComposeRunNotRequiredDeps")
def test_what_need_not_be_there_is_not_made(scenario: Scenario) -> None:
    assert scenario("run foo").stdout == "foo\n"
    assert "bar-1" not in scenario.states()


@of("TestComposeRunQuietPull")
def test_run_can_be_quiet(scenario: Scenario) -> None:
    assert "pull" not in scenario("run --quiet-pull backend").stderr.replace(scenario.name, "")
    scenario.environment["COMPOSE_PROGRESS"] = "quiet"
    scenario("down")
    assert scenario("run backend").stderr == ""


@of("TestComposeRunRmStopSignal")
def test_a_run_that_is_stopped_from_outside_is_removed(scenario: Scenario) -> None:
    scenario.file = "ps-test/compose.yaml"
    name = scenario("run --rm -d nginx").stdout.strip()
    scenario.lab("container", "stop", name)
    eventually(lambda: _gone(scenario.lab, name))


def _gone(lab: Pystack, name: str) -> None:
    assert name not in lab("container", "ls", "-a").stdout


# --- up, down, and what is between -----------------------------------------------------------------------------------


@of("TestLocalComposeUp")
def test_the_whole_way(scenario: Scenario) -> None:
    scenario.file = "sentences/compose.yaml"
    scenario("up -d")
    port = scenario("port web 80").stdout.strip().rpartition(":")[2]
    assert "nginx" in scenario.lab.on("n1", "curl", "-s", f"http://127.0.0.1:{port}/")
    labels = scenario.inspected("web-1")["Config"]["Labels"]
    assert labels["com.docker.compose.project"] == scenario.name
    assert labels["com.docker.compose.service"] == "web"
    assert "web-1" in scenario("top").stdout
    assert "gtardif/sentences-web" in scenario("images").stdout
    scenario("down web")
    assert "web-1" not in scenario.states()
    scenario("down")
    assert scenario.name not in scenario.lab("network", "ls").stdout


@of("TestDownComposefileInParentFolder")
def test_the_file_is_found_upwards(scenario: Scenario) -> None:
    inner = scenario.folder / "simple-composefile" / "inner"
    inner.mkdir()
    scenario.file = ""
    scenario("up -d", cwd=inner)
    assert scenario.states()
    scenario("down")


@of("TestInitContainer")
def test_a_dependent_waits_for_the_end(scenario: Scenario) -> None:
    said = scenario("--ansi=never up --menu=false --attach").stdout
    assert said.index("hello") < said.index("world")


@of("TestRemoveOrphaned")
def test_down_of_one_leaves_the_others(scenario: Scenario) -> None:
    scenario("up -d")
    scenario("down --remove-orphans web")
    assert scenario.states() == {"db-1": "running", "words-1": "running"}


@of("TestUpExitCodeFrom")
def test_the_exit_code_of_a_service(scenario: Scenario) -> None:
    scenario("up --menu=false --exit-code-from=failure failure", code=42)


@of("TestUpExitCodeFromContainerKilled")
def test_the_exit_code_of_one_that_was_stopped(scenario: Scenario) -> None:
    scenario("up --menu=false --exit-code-from=test", code=143)


@of("TestCascadeStop")
def test_the_first_end_stops_the_rest(scenario: Scenario) -> None:
    scenario("up --abort-on-container-exit")
    assert "running" not in scenario.states().values()


@of("TestUpStopWithLogsMixed")
def test_hooks_and_logs_while_the_rest_is_stopped(scenario: Scenario) -> None:
    done = scenario("up --abort-on-container-exit")
    assert "64 bytes from" in done.stdout
    assert "service1-1 ended with 0" in done.stderr


@of("TestStdoutStderr")
def test_streams_stay_apart(scenario: Scenario) -> None:
    (scenario.folder / "log_to_stderr.sh").write_text(">&2 echo 'log to stderr'\necho 'log to stdout'\n")
    done = scenario("up --menu=false --attach")
    assert "log to stdout" in done.stdout
    assert "log to stderr" in done.stderr
    assert "log to stderr" not in done.stdout


@of("TestUpWithDependencyExit")
def test_a_dependency_that_ends_before_it_is_healthy(scenario: Scenario) -> None:
    assert "upwithdependencyexit-db-1: " in scenario("up -d", code=1).stderr
    assert scenario.states()["web-1"] in ("created", "pending", "waiting")


@of("TestRecreateWithNoDeps")
def test_one_is_made_anew_and_what_it_needs_is_kept(scenario: Scenario) -> None:
    scenario("up -d --wait")
    before = scenario.ids()
    scenario("up -d --force-recreate --no-deps my-service")
    after = scenario.ids()
    assert after["dep-1"] == before["dep-1"]
    assert after["my-service-1"] != before["my-service-1"]


@of("TestStartInterval")
def test_a_start_interval_needs_a_start_period(scenario: Scenario) -> None:
    assert "start_period" in scenario("up --wait -d error", code=1).stderr
    scenario("up --wait -d test")
    assert '"health": "healthy"' in scenario("ps --format json").stdout


@of("TestExplicitProfileUsage")
def test_a_profile_that_is_named(scenario: Scenario) -> None:
    both = {"regular-service-1", "profiled-service-1"}
    for verb, state in (("up -d", "running"), ("stop -t 0", "exited"), ("start", "running"), ("restart -t 0", "running")):
        scenario(f"--profile test-profile {verb}")
        assert scenario.states() == dict.fromkeys(both, state)
    scenario("--profile test-profile down")
    assert scenario.states() == {}


@of("TestPause", "TestPauseServiceAlreadyPaused", "TestPauseServiceDoesNotExist")
def test_pause(scenario: Scenario) -> None:
    scenario("up -d")
    before = scenario.ids()
    scenario("pause a")
    assert scenario.states()["a-1"] == "paused"
    assert scenario.states().get("b-1", "running") == "running"
    scenario("pause a", code=1)
    scenario("pause does_not_exist", code=1)
    scenario("unpause a")
    assert scenario.ids() == before


@of("TestStartStop", "TestStartStopWithDependencies")
def test_start_and_stop(scenario: Scenario) -> None:
    names = ("foo", "bar") if "foo:" in (scenario.folder / "compose.yaml").read_text() else ("simple", "another")
    scenario("up -d")
    before = scenario.ids()
    scenario(f"stop -t 0 {names[0]}")
    assert scenario.states() == {f"{names[0]}-1": "exited", f"{names[1]}-1": "running"}
    scenario("stop -t 0")
    assert set(scenario.states().values()) == {"exited"}
    assert scenario.name in scenario("ls --all --format json").stdout
    scenario("start foo" if names[0] == "foo" else "start")
    assert scenario.states() == {f"{name}-1": "running" for name in names}
    assert scenario.ids() == before


@of("TestStartSingleServiceAndDependency")
def test_start_takes_what_a_service_needs_along(scenario: Scenario) -> None:
    scenario("create desired")
    scenario("start desired")
    assert scenario.states() == dict.fromkeys(("desired-1", "dep_1-1", "dep_2-1"), "running")


@of("TestRestartWithDependencies")
def test_a_restart_takes_along_who_asks_for_it(scenario: Scenario) -> None:
    scenario.file = "restart-test/compose-depends-on.yaml"
    scenario("up -d")

    def started() -> dict[str, str]:
        return {r["service"]: r["started"] for r in json.loads(scenario("ps --format json").stdout)}

    before = started()
    scenario("restart -t 0 nginx")
    after = started()
    assert after["with-restart"] > after["nginx"] > before["with-restart"]
    assert after["no-restart"] == before["no-restart"]
    scenario.environment["LABEL"] = "recreate"
    scenario("up -d")
    last = started()
    assert last["nginx"] > after["nginx"]
    assert last["with-restart"] > last["nginx"]
    assert last["no-restart"] == before["no-restart"]


@of("TestRestartWithProfiles")
def test_a_service_of_a_profile_is_restarted_without_naming_it(scenario: Scenario) -> None:
    scenario.file = "restart-test/compose.yaml"
    scenario("--profile test up -d")
    before = json.loads(scenario("ps --format json test").stdout)[0]["started"]
    scenario("restart -t 0 test")
    assert json.loads(scenario("ps --format json test").stdout)[0]["started"] > before


@of("TestScaleBasicCases")
def test_scale(scenario: Scenario) -> None:
    def counts() -> list[int]:
        tasks = [name for name, state in scenario.states().items() if state == "running"]
        return [sum(t.startswith(f"{s}-") for t in tasks) for s in ("front", "back", "db", "dbadmin")]

    scenario("up -d")
    assert counts() == [2, 1, 1, 0]
    for words, want in (
        ("dbadmin=2", [2, 1, 1, 2]),
        ("front=3 back=2", [3, 2, 1, 2]),
        ("dbadmin=1", [3, 2, 1, 1]),
        ("dbadmin=0", [3, 2, 1, 0]),
        ("front=2 back=1", [2, 1, 1, 0]),
    ):
        scenario(f"scale {words}")
        assert counts() == want


@of("TestScaleDownRemovesObsolete")
def test_scale_down_leaves_one_that_is_current(scenario: Scenario) -> None:
    scenario("up -d db")
    scenario.environment["MAYBE"] = "value"
    scenario("up -d --scale db=2 db")
    scenario("up -d --scale db=1 db")
    assert scenario("exec -T db sh -c", "echo $MAYBE").stdout == "value\n"


@of("TestWaitOnInfinity")
def test_wait_waits(scenario: Scenario) -> None:
    scenario.file = "wait/compose.yaml"
    scenario("up -d")
    words = [sys.executable, "-m", "orchestrator", "-p", scenario.name, "wait", "infinity"]
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(words, env=scenario.environment, timeout=3, check=False, capture_output=True)


@of("TestWaitAndDrop")
def test_wait_takes_the_stack_down(scenario: Scenario) -> None:
    scenario("up -d")
    scenario("wait --down-project faster")
    assert scenario.states() == {}


# --- looking ---------------------------------------------------------------------------------------------------------


@of("TestPs")
def test_ps(scenario: Scenario) -> None:
    scenario.file = "ps-test/compose.yaml"
    scenario("up -d")
    assert "127.0.0.1:8001->8000/tcp" in scenario("ps").stdout
    assert {row["service"] for row in json.loads(scenario("ps --format json").stdout)} == {"nginx", "busybox"}
    scenario("stop -t 0")
    assert "exited" in scenario("ps --all").stdout
    assert "busybox" not in scenario("ps nginx").stdout
    scenario("ps unknown", code=1)


@of("TestEventsUnknownService")
def test_events_of_an_unknown_service(scenario: Scenario) -> None:
    scenario.file = "simple-composefile/compose.yaml"
    scenario("up -d")
    assert "not-a-service" in scenario("events not-a-service", code=1).stderr


@of("TestCopy")
def test_copy(scenario: Scenario) -> None:
    scenario("up --scale nginx=5 -d")
    scenario("cp cp-me.txt nginx:/tmp/default.txt")
    content = (scenario.folder / "cp-me.txt").read_text()
    for index in range(1, 6):
        assert scenario(f"exec -T --index {index} nginx cat /tmp/default.txt").stdout == content
    scenario("cp --index=3 cp-me.txt nginx:/tmp/indexed.txt")
    scenario("exec -T --index 3 nginx cat /tmp/indexed.txt")
    scenario("exec -T --index 2 nginx cat /tmp/indexed.txt", code=1)
    scenario("cp nginx:/tmp/default.txt from-default.txt")
    scenario("cp --index=3 nginx:/tmp/indexed.txt from-indexed.txt")
    assert (scenario.folder / "from-indexed.txt").read_text() == (scenario.folder / "cp-me.txt").read_text()
    scenario("cp cp-folder nginx:/tmp")
    scenario("cp nginx:/tmp/cp-folder cp-folder2")
    assert (scenario.folder / "cp-folder2" / "cp-me.txt").exists()
    scenario("cp nginx:/nowhere here", code=1)


@of("TestExportWithReplicas")
def test_export_of_a_replica(scenario: Scenario) -> None:
    import tarfile

    scenario("up -d service-with-replicas")
    scenario("exec -T --index 2 service-with-replicas touch /only-here")
    for index in (1, 2):
        scenario(f"export -o {scenario.folder}/r{index}.tar --index={index} service-with-replicas")
        with tarfile.open(scenario.folder / f"r{index}.tar") as tar:
            names = tar.getnames()
        assert "bin/busybox" in names
        assert ("only-here" in names) is (index == 2)


@of("TestLocalComposeLogsFollow")
def test_logs_follow_what_comes_later(scenario: Scenario) -> None:
    scenario.file = "logs-test/compose.yaml"
    text = scenario.folder / "logs-test" / "compose.yaml"
    text.write_text(re.sub(r"command: ping.*", "command: sh -c 'echo ping; sleep 1000'", text.read_text()))
    scenario("up -d ping")
    words = [sys.executable, "-m", "orchestrator", "-p", scenario.name, "logs", "-f"]
    with subprocess.Popen(words, env=scenario.environment, stdout=subprocess.PIPE, text=True) as follower:
        guard = threading.Timer(60 * PATIENCE, follower.kill)
        guard.start()
        try:
            assert follower.stdout
            seen: set[str] = set()
            assert "ping-1" in follower.stdout.readline()
            scenario("up -d")
            scenario("up -d --scale ping=2 ping")
            while not {"hello-1", "ping-2"} <= seen:
                line = follower.stdout.readline()
                assert line, seen
                seen.add(line.partition(" |")[0].strip().removeprefix(f"{scenario.name}-"))
        finally:
            guard.cancel()
            follower.kill()


@of("TestLocalComposeLargeLogs")
def test_three_hundred_thousand_lines_under_an_attached_up(scenario: Scenario) -> None:
    scenario.file = "logs-test/cat.yaml"
    folder = scenario.folder / "logs-test"
    (folder / "text_file.txt").write_text("".join(f"line {n}\n" for n in range(300_000)))
    mount = re.sub(r"- .*:/text_file.txt", "- ./text_file.txt:/text_file.txt", (folder / "cat.yaml").read_text())
    (folder / "cat.yaml").write_text(mount)
    done = scenario("up --abort-on-container-exit --menu=false")
    assert done.stdout.count("\n") == 300_000


@of("TestImageVolumeImageAlreadyLocal")
def test_an_image_as_a_volume(scenario: Scenario) -> None:
    scenario("up app")
    assert "index.html" in scenario("logs app").stdout
    before = scenario.ids()
    scenario("up app")
    assert scenario.ids() == before
    assert "read-only" in scenario("run app touch /mnt/image/new", code=1).stderr.lower()


@of("TestLocalComposeVolume")
def test_volumes_of_all_kinds(scenario: Scenario) -> None:
    folder = scenario.folder / "volume-test"
    (folder / "static").mkdir(exist_ok=True)
    (folder / "static" / "index.html").write_text("static content\n")
    (folder / "nginx-build").mkdir(exist_ok=True)
    (folder / "nginx-build" / "Dockerfile").write_text("FROM nginx:alpine\n")
    scenario.file = "volume-test/compose.yaml"
    scenario("up -d")
    assert scenario("exec -T nginx cat /usr/share/nginx/html/index.html").stdout == "static content\n"
    for path in ("/myconfig", "/run/secrets/mysecret"):
        assert scenario(f"exec -T nginx2 cat {path}").stdout == "static content\n"
    mounts = {m["Destination"]: m for m in scenario.inspected("nginx2-1")["Mounts"]}
    assert mounts["/usr/share/nginx/html"]["RW"] is False
    assert mounts["/usr/share/nginx/test"]["Name"] == "myVolume"
    marker = "/usr/src/app/node_modules/test"
    scenario(f"exec -T nginx2 touch {marker}")
    scenario("up --force-recreate -d")
    scenario(f"exec -T nginx2 ls {marker}")
    scenario("up --force-recreate --renew-anon-volumes -d")
    scenario(f"exec -T nginx2 ls {marker}", code=1)
    scenario("down --volumes")
    assert "myVolume" not in scenario.lab("volume", "ls").stdout


@of("TestPsHonorsPsFormat")
def test_the_docker_commands_own_form_of_ps(scenario: Scenario, tmp_path: Path) -> None:
    scenario("up -d")
    (tmp_path / "config.json").write_text(json.dumps({"psFormat": "table {{.Names}}\\t{{.State}}"}))
    scenario.environment["DOCKER_CONFIG"] = str(tmp_path)
    head, row = scenario("ps", compose=True).stdout.splitlines()
    assert head.split() == ["NAMES", "STATE"]
    assert row.split() == [f"{scenario.name}-app-1", "running"]


@of("TestPublishInterpolatedEnv")
def test_variables_are_published_as_they_stand(scenario: Scenario) -> None:
    assert "would be published" in scenario("--dry-run publish test/test -y", compose=True).stderr


@of("TestPublishDetectSensitiveData")
def test_what_looks_secret_is_shown_before_it_is_published(scenario: Scenario) -> None:
    (scenario.folder / "secret.txt").write_text("-----BEGIN PRIVATE KEY-----\n")
    said = scenario("--dry-run publish test/test --with-env", compose=True, code=130, stdin="n\n").stderr
    assert "AWS Client ID" in said


# --- all of them -----------------------------------------------------------------------------------------------------


def test_nineteen_in_twenty_hold() -> None:
    """Of the scenarios that need no hub; what is left out says why."""
    if not INDEX.exists():
        pytest.skip("the shared corpora are not here")
    known = {s["id"] for s in json.loads(INDEX.read_text())}
    assert known - SHOWN == LEFT_OUT.keys() | NEED_A_HUB.keys()
    assert len(SHOWN) >= 0.95 * len(known - NEED_A_HUB.keys())
