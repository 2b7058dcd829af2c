"""The state of a container in Docker's words."""

from __future__ import annotations

import datetime
import time
from typing import Any

import pytest

from agent.api import describe
from agent.contract.container import Container, Healthcheck
from agent.engine.records import Record
from agent.images.store import Image
from agent.images.types import Config, RootFs, RunConfig

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def ago(seconds: int) -> str:
    return (NOW - datetime.timedelta(seconds=seconds)).isoformat()


def record(**fields: Any) -> Record:
    container = fields.pop("container", Container(image="a"))
    return Record(id="f" * 64, name="web", container=container, created=ago(0), **fields)


STATES: dict[str, tuple[dict[str, Any], str, str]] = {
    "made": ({"state": "created"}, "created", "Created"),
    "on its way": ({"state": "starting"}, "created", "Created"),
    "without its image": ({"state": "pulling"}, "created", "Created"),
    "never started": ({"state": "failed", "exit_code": 127}, "created", "Created"),
    "ended in an error": (
        {"state": "failed", "exit_code": 1, "started": ago(99), "finished": ago(0)},
        "exited",
        "Exited (1) Less than a second ago",
    ),
    "running": ({"state": "running", "started": ago(7)}, "running", "Up 7 seconds"),
    "healthy": ({"state": "running", "started": ago(90), "health": "healthy"}, "running", "Up About a minute (healthy)"),
    "for minutes": ({"state": "running", "started": ago(300)}, "running", "Up 5 minutes"),
    "for an hour": ({"state": "running", "started": ago(3700)}, "running", "Up About an hour"),
    "for days": ({"state": "running", "started": ago(3 * 86_400)}, "running", "Up 3 days"),
    "on its way to its end": ({"state": "stopping", "started": ago(120)}, "running", "Up 2 minutes"),
    "paused": ({"state": "paused", "started": ago(7)}, "paused", "Up 7 seconds (Paused)"),
    "between two starts": ({"state": "restarting", "exit_code": 3}, "restarting", "Restarting (3)"),
    "ended": (
        {"state": "exited", "exit_code": 0, "started": ago(99), "finished": ago(60)},
        "exited",
        "Exited (0) About a minute ago",
    ),
}


@pytest.mark.parametrize(("fields", "word", "words"), STATES.values(), ids=STATES)
def test_a_state_in_a_word_and_in_words(fields: dict[str, Any], word: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", NOW.timestamp)
    made = record(**fields)
    assert describe.state_word(made) == word
    assert describe.status_words(made) == words


def test_an_endpoint_has_the_same_name_each_time_and_another_than_others() -> None:
    first = describe.endpoint_id(record(), "a")
    assert first == describe.endpoint_id(record(), "a")
    assert len({first, describe.endpoint_id(record(), "b")}) == 2


def image(**config: Any) -> Image:
    whole = Config(rootfs=RootFs(diff_ids=("sha256:" + "0" * 64,)), config=RunConfig(**config))
    return Image(id="sha256:1", digest="sha256:2", names=("a:latest",), config=whole, layers=(), size=0, created="")


CONFIGS: dict[str, tuple[dict[str, Any], dict[str, Any], str, Any]] = {
    "the image's command": ({}, {"cmd": ("sh",)}, "Cmd", ["sh"]),
    "its own command": ({"command": ("ls",)}, {"cmd": ("sh",)}, "Cmd", ["ls"]),
    "an entrypoint of its own takes the image's command away": ({"entrypoint": ("x",)}, {"cmd": ("sh",)}, "Cmd", None),
    "variables of the image come after its own": (
        {"environment": (("A", "1"),)},
        {"env": ("A=0", "B=2")},
        "Env",
        ["A=1", "B=2"],
    ),
    "the image's user": ({}, {"user": "www"}, "User", "www"),
    "its own user": ({"user": "0"}, {"user": "www"}, "User", "0"),
    "the image's signal": ({}, {"stop_signal": "SIGQUIT"}, "StopSignal", "SIGQUIT"),
    "SIGTERM": ({}, {}, "StopSignal", "SIGTERM"),
    "a name of twelve digits": ({}, {}, "Hostname", "f" * 12),
    "ports of both": ({"expose": ("53/udp",)}, {"exposed_ports": {"80/tcp": {}}}, "ExposedPorts", {"80/tcp": {}, "53/udp": {}}),
    "labels of both": ({"labels": (("a", "1"),)}, {"labels": {"a": "0", "b": "2"}}, "Labels", {"a": "1", "b": "2"}),
    "a healthcheck in nanoseconds": (
        {"healthcheck": Healthcheck(test=("CMD", "true"), interval_s=1.5)},
        {},
        "Healthcheck",
        {"Test": ["CMD", "true"], "Interval": 1_500_000_000, "Timeout": 30_000_000_000, "Retries": 3, "StartPeriod": 0},
    ),
}


@pytest.mark.parametrize(("own", "of_image", "key", "expected"), CONFIGS.values(), ids=CONFIGS)
def test_the_configuration(own: dict[str, Any], of_image: dict[str, Any], key: str, expected: Any) -> None:
    made = record(container=Container(image="a", **own))
    assert describe.config(made, image(**of_image))[key] == expected
