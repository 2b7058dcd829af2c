"""The reader of a repository sees the commit and nothing else, follows links within it, and tells what is wrong of others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.errors import PystackError
from orchestrator.gitops import load

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="the jail's mounts need root")]


@pytest.fixture
def top(tmp_path: Path) -> Path:
    made = tmp_path / load.TOP.lstrip("/")
    made.mkdir()
    tmp_path.chmod(0o755)
    return made


async def read(top: Path) -> list[str]:
    """The images of the stacks."""
    stacks, _ = await load.stacks_of(load.LoadRequest(str(top.parent), "r", ".", ()))
    return sorted(service.container.image for stack in stacks for service in stack.services)


async def test_links_within_it_are_followed(top: Path) -> None:
    (top / "real").mkdir()
    (top / "real/base.yml").write_text("services: {base: {image: linked}}\n")
    (top / "app").symlink_to("real")
    (top / "env").symlink_to("real/words")
    (top / "real/words").write_text("WORD=x\n")
    (top / "stack.yml").write_text("services: {a: {extends: {file: app/base.yml, service: base}, env_file: env}}\n")
    assert await read(top) == ["linked"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd", "/proc/self/environ", "/proc/1/root/etc/passwd"])
async def test_links_out_of_it_lead_nowhere(target: str, top: Path) -> None:
    (top / "out").symlink_to(target)
    (top / "stack.yml").write_text("services: {a: {image: i, env_file: out}}\n")
    with pytest.raises(PystackError, match=r"stack\.yml:1:26: .* does not exist\n    → create it"):
        await read(top)


async def test_what_explodes_ends_the_reader_alone(top: Path) -> None:
    lines = [f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (top / "stack.yml").write_text("\n".join(["x-0: &a0 [x, x]", *lines, "services: {a: {image: i}}"]))
    with pytest.raises(PystackError, match="stack"):
        await read(top)


async def test_a_file_that_cannot_be_read_is_told_as_such(top: Path) -> None:
    os.mkfifo(top / "words")
    (top / "stack.yml").write_text("services: {a: {image: i, env_file: words}}\n")
    with pytest.raises(PystackError) as found:
        await read(top)
    assert "words" in str(found.value)
    assert "within" not in str(found.value)


async def test_what_is_imported_late_and_the_time_zones_are_there(top: Path) -> None:
    (top / "stack.yml").write_text(
        "services:\n  a: {image: i, x-schedule: {cron: '5 4 * * *', timezone: Australia/Lord_Howe}}\n"
        "  b: {image: i, x-scale: {max: 3, target: {cpu: 50%}}, volumes: ['d:/d']}\n"
        "volumes: {d: {x-backup: {to: /srv, password: k}}}\nsecrets: {k: {external: true}}\n"
    )
    stacks, _ = await load.stacks_of(load.LoadRequest(str(top.parent), "r", ".", (), "feature-1"))
    assert stacks[0].name == "r-feature-1"
    assert [v.name for v in stacks[0].volumes] == ["r-feature-1_d"]
    assert stacks[0].services[0].schedule
