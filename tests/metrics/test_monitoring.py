"""The Prometheus that pystack runs: what its own tool says of the configuration, and what stays the same."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.errors import PystackError
from orchestrator.metrics.discovery import nodes
from orchestrator.metrics.prometheus import FOLDER, MonitoringSettings, configuration, system_stack
from orchestrator.packaged_image import Recipe, archive, find

SETTINGS = MonitoringSettings(image="i", alertmanagers=("10.0.0.9:9093",))
SERVERS = ("10.0.0.1", "fd00::1")


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs Debian's prometheus: `make setup`")
def test_promtool_takes_the_configuration_and_the_rules(tmp_path: Path) -> None:
    stack = system_stack(SETTINGS, SERVERS, "a root")
    for content in stack.contents:
        text = (content.content or b"a token").decode()
        for folder in (FOLDER, "/run/secrets"):
            text = text.replace(folder, str(tmp_path))
        (tmp_path / content.key).write_text(text)
    done = subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yml"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"SUCCESS" in done.stdout


def test_every_server_is_asked_and_its_name_is_checked() -> None:
    made = configuration(SETTINGS, SERVERS)
    jobs = {job["job_name"]: job for job in made["scrape_configs"]}
    assert jobs["pystack"]["static_configs"] == [{"targets": ["10.0.0.1:9464", "[fd00::1]:9464"]}]
    assert [one["url"] for one in jobs["nodes"]["http_sd_configs"]] == [
        "https://10.0.0.1:9464/v1/sd/nodes",
        "https://[fd00::1]:9464/v1/sd/nodes",
    ]
    for one in (jobs["pystack"], *jobs["nodes"]["http_sd_configs"], *jobs["tasks"]["http_sd_configs"]):
        assert one["tls_config"]["server_name"] == "pystack-server.internal"
        assert one["authorization"]["type"] == "Bearer"


def test_nodes_have_their_metrics_by_way_of_the_server() -> None:
    (first, second) = nodes(["n2", "n1"], "10.0.0.1:9464")
    assert (first.targets, first.labels["instance"], second.labels["instance"]) == (("10.0.0.1:9464",), "n1", "n2")
    assert first.labels["__metrics_path__"] == "/v1/nodes/n1/engine/metrics"


def test_the_same_stack_is_made_of_the_same_settings() -> None:
    assert system_stack(SETTINGS, SERVERS, "a root") == system_stack(SETTINGS, SERVERS, "a root")


@pytest.mark.skipif(not shutil.which("caddy"), reason="needs a Debian package that is installed: `make setup`")
def test_an_image_is_the_same_bytes_each_time_and_of_that_package_alone(tmp_path: Path) -> None:
    recipe = Recipe(repository="r", program="usr/bin/caddy", files={"etc/x": b"y"}, folders={"data": 7}, made_by="a test")
    package = find("caddy", tmp_path)
    assert archive(package, recipe) == archive(package, recipe)
    (tmp_path / "other.deb").write_bytes(b"no package")
    with pytest.raises(PystackError, match="other"):
        find("caddy", tmp_path, str(tmp_path / "other.deb"))
