"""What the guide and the reference say is so: pages are those that the code makes, commands are taken, files are read."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
import yaml

from agent.settings import Settings
from orchestrator.cli import cli
from orchestrator.stackfile.load import Options, load

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs/guide").glob("*.md")])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.S | re.M)
INLINE = re.compile(r"`(pystack [^`\n]+)`")
PLACEHOLDERS = re.compile(r"…|\b(?:TASK|SERVICE|NAME|NEW|ADDRESS|FILE|TARGET|STACK|HOST|REVISION)\b")
LOADED = ("yaml",)
TYPED = ("console", "shell")


def blocks(kinds: tuple[str, ...]) -> list[tuple[str, str]]:
    return [
        (f"{page.stem}-{number}", found[1])
        for page in PAGES
        for number, found in enumerate(FENCE.findall(page.read_text()))
        if found[0] in kinds
    ]


MENTIONED = {line for page in PAGES for line in INLINE.findall(FENCE.sub("", page.read_text()))}


def lines() -> Iterator[str]:
    """Each command line that a page shows, inline ones too if they are whole."""
    for _, text in blocks(TYPED):
        for line in text.splitlines():
            line = line.removeprefix("$ ").removeprefix("# ")
            if line.startswith("pystack "):
                yield line
    for page in PAGES:
        prose = FENCE.sub("", page.read_text())
        yield from (line for line in INLINE.findall(prose) if not PLACEHOLDERS.search(line))


def test_the_reference_is_what_the_code_says(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "tools/reference.py", str(tmp_path)], cwd=ROOT, check=True)
    for made in sorted(tmp_path.iterdir()):
        kept = ROOT / "docs/reference" / made.name
        assert kept.read_text() == made.read_text(), f"run `python tools/reference.py`: {made.name} is not what the code says"


@pytest.mark.parametrize("line", sorted(set(lines())))
def test_a_command_of_the_guide_is_one(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in (
        "docker-compose.yml",
        "stack.yml",
        "deployment.yaml",
        "service.yaml",
        "password.txt",
        "key",
        "f.yml",
        "backup.json",
        "cluster.backup",
    ):
        (tmp_path / file).touch()
    words = shlex.split(re.split(r" [<>|;] |;", line)[0], comments=True)
    contexts = [cli.make_context("pystack", words[1:])]
    command: click.Command = cli
    while isinstance(command, click.Group):
        context = contexts[-1]
        rest = [*context._protected_args, *context.args]
        if not rest:
            break
        name, found, rest = command.resolve_command(context, rest)
        assert found
        assert name
        command = found
        try:
            contexts.append(found.make_context(name, list(rest), parent=context))
        except (click.MissingParameter, click.BadOptionUsage, click.exceptions.NoArgsIsHelpError):
            assert line in MENTIONED  # a sentence that speaks of the command
            break
    for context in contexts:
        context.close()


@pytest.mark.parametrize(("text"), [t for _, t in blocks(LOADED)], ids=[n for n, _ in blocks(LOADED)])
def test_a_file_of_the_guide_is_read(text: str, tmp_path: Path) -> None:
    document = yaml.safe_load(text)
    if not isinstance(document, dict) or not {"services", "networks", "volumes"} & set(document):
        if isinstance(document, dict) and set(document) <= set(Settings.__struct_fields__):
            msgspec.convert(document, Settings)
            return
        document = {"services": {"web": {"image": "x"} | document}}  # keys of a service
    document.setdefault("services", {"x": {"image": "x"}})
    (tmp_path / "stack.yml").write_text(yaml.safe_dump(document))
    (tmp_path / "password.txt").write_text("x")
    for name in ("cache", "db"):
        if "x-placement" in text:
            document["services"].setdefault(name, {"image": "x"})
    (tmp_path / "stack.yml").write_text(yaml.safe_dump(document))
    loaded = load(Options(files=(str(tmp_path / "stack.yml"),)), {"API_KEY": "x"})
    assert [str(warning) for warning in loaded.warnings] == []


def test_nearly_all_blocks_are_tried() -> None:
    kinds = [kind for page in PAGES for kind, _ in FENCE.findall(page.read_text())]
    tried = [kind for kind in kinds if kind in (*LOADED, *TYPED)]
    assert len(tried) >= 0.95 * len(kinds)
    assert len(kinds) > 30


def test_every_page_is_in_the_sites_contents() -> None:
    contents = (ROOT / "mkdocs.yml").read_text()
    pages = [p.relative_to(ROOT / "docs") for p in (ROOT / "docs").rglob("*.md") if "decisions" not in p.parts]
    assert [str(p) for p in pages if str(p) not in contents] == []
