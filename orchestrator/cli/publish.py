"""`pystack publish`: the stack files to a registry, where `-f oci://…` and `include` of anybody find them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import StackOptions, global_option, stack_options
from orchestrator.errors import InterruptedByUserError, PystackError

if TYPE_CHECKING:
    from orchestrator.cli.stack_artifact import Part
    from orchestrator.stackfile.load import Loaded
    from orchestrator.stackfile.marked_document import MarkedDocument
    from orchestrator.stackfile.sources import File

MASK = "x" * 20


@click.command()
@stack_options
@click.option("--oci-version", type=click.Choice(["1.0", "1.1"]), default="1.1", help="The form of the artifact.")
@click.option("--resolve-image-digests", is_flag=True, help="Pin the images to what their registries have now.")
@click.option("--with-env", is_flag=True, help="Publish values of variables, and files of them, too.")
@click.option("--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="Say this of the artifact.")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing.")
@click.option("--dry-run", is_flag=True, help="Check it, and publish nothing.")
@click.argument("name", metavar="REGISTRY/NAME[:TAG]")
def publish(
    stack: StackOptions,
    oci_version: str,
    resolve_image_digests: bool,
    with_env: bool,
    annotations: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    name: str,
) -> None:
    """Store the stack's files in a registry, as an artifact that `-f oci://REGISTRY/NAME` and `include:` take.

    Images that the stack builds are pushed first. Contents of configs, secrets and bind mounts stay here."""
    from orchestrator.cli import stack_artifact

    noted = dict(text.partition("=")[::2] for text in annotations)
    if bad := next((text for text in annotations if "=" not in text or text.startswith("=")), ""):
        raise click.UsageError(f"--annotation {bad}: write KEY=VALUE")
    loaded = stack.load(quiet=True)
    _check_images(loaded)
    texts = Texts(loaded.directory, loaded.environment, with_env=with_env)
    parts = texts.parts(loaded.opened)
    if not yes:
        _ask(loaded, texts)
    if resolve_image_digests:
        from orchestrator.cli.config import lock_file

        parts.append(stack_artifact.Part("image-digests.yaml", lock_file(loaded, ()).encode()))
    if dry_run or global_option("dry_run"):
        click.echo(f"{name} would be published: {', '.join(part.name for part in parts)}", err=True)
        return
    if any(s.build for s in loaded.stack.services):
        from orchestrator.cli.client import Client
        from orchestrator.cli.export import push_images

        push_images(Client(start=True), loaded.stack, (), quiet=False)
    digest = stack_artifact.upload(name, parts, version=oci_version, annotations=noted)
    click.echo(f"{name} published: {digest}", err=True)


def _check_images(loaded: Loaded) -> None:
    """Raises PystackError for services whose image nobody else can have."""
    unnamed = [s.name for s in loaded.services if s.build and s.container.image == f"{loaded.stack.name}-{s.name}"]
    if unnamed:
        raise PystackError(
            f"{', '.join(unnamed)}: a service with `build:` alone cannot be published: give it an `image:` to push to"
        )


class Texts:
    """The stack's files as they are published: what lies beside them goes along under a name without a folder.

    *sensitive* and *variables* collect what their author is asked about: the place, and the value or the kind of secret."""

    def __init__(self, directory: Path, environment: Mapping[str, str], *, with_env: bool) -> None:
        self._directory = directory
        self._environment = environment
        self._with_env = with_env
        self._beside: dict[Path, Part] = {}
        self._todo: list[Path] = []
        self.sensitive: list[tuple[str, str]] = []
        self.variables: list[str] = []

    def parts(self, opened: Sequence[File]) -> list[Part]:
        """*opened* and what their services extend or read variables of. Raises PystackError for what cannot go along."""
        from orchestrator.cli.stack_artifact import Part
        from orchestrator.stackfile import yaml_documents

        stack = [Part(path.name, self._text(path, documents).encode()) for path, documents in opened]
        while self._todo:
            path = self._todo.pop()
            text = self._text(path, yaml_documents.read(path, str(path)))
            self._beside[path] = Part(self._beside[path].name, text.encode(), "extended")
        return [*stack, *self._beside.values()]

    def _text(self, path: Path, documents: list[MarkedDocument]) -> str:
        lines = path.read_text().splitlines(keepends=True)
        for document in documents:
            for include in _listed(document.value.get("include")):
                text = include.get("path") if isinstance(include, dict) else include
                self._check_include(document, [text] if isinstance(text, str) else _listed(text))
            for name, body in (document.value.get("services") or {}).items():
                if isinstance(body, dict):
                    self._service(document, lines, path.parent, name, body)
        return "".join(lines)

    def _check_include(self, document: MarkedDocument, texts: list[Any]) -> None:
        from orchestrator.stackfile.remote import is_remote

        if here := [t for t in texts if not is_remote(str(t))]:
            raise PystackError(
                f"{document.mark(('include',))}: {here[0]}: a file that includes one of this host cannot be published"
            )

    def _service(self, document: MarkedDocument, lines: list[str], folder: Path, name: str, body: dict[str, Any]) -> None:
        from orchestrator.cli import sensitive
        from orchestrator.stackfile.remote import is_remote

        spec = body.get("extends")
        if isinstance(spec, dict) and spec.get("file") and not is_remote(str(spec["file"])):
            self._replace(
                document,
                lines,
                ("services", name, "extends", "file"),
                str(spec["file"]),
                self._extended(folder, str(spec["file"])),
            )
        for key, value in _pairs(body.get("environment")):
            place = f"services.{name}.environment.{key}"
            self.sensitive += [(place, kind) for kind in sensitive.found(f"{key}={value}")]
            if value and "$" not in value:
                self._admit(document, ("services", name, "environment"), f"{name} sets {key}")
                self.variables.append(f"{place}: {value}")
        given = body.get("env_file")
        for number, entry in enumerate([given] if isinstance(given, str) else _listed(given)):
            at: tuple[str | int, ...] = ("services", name, "env_file", *((number,) if isinstance(given, list) else ()))
            text = str(entry.get("path") if isinstance(entry, dict) else entry)
            self._admit(document, at, f"{name} reads {text}")
            at = (*at, "path") if isinstance(entry, dict) else at
            self._replace(document, lines, at, text, self._variables_file(folder, text))

    def _admit(self, document: MarkedDocument, at: tuple[str | int, ...], what: str) -> None:
        """Raises PystackError unless values of variables may be published."""
        if not self._with_env:
            fix = "publish them with --with-env, or take them out"
            raise PystackError(f"{document.mark(at)}: {what}: values of variables stay here unless you say so: {fix}")

    def _path(self, folder: Path, text: str) -> Path:
        from orchestrator.stackfile.interpolate import substitute

        return (folder / Path(substitute(text, self._environment)).expanduser()).resolve()

    def _extended(self, folder: Path, text: str) -> str:
        from orchestrator.cli.stack_artifact import Part

        path = self._path(folder, text)
        if path not in self._beside:
            self._beside[path] = Part(f"{_short(path)}.yaml", b"", "extended")
            self._todo.append(path)
        return self._beside[path].name

    def _variables_file(self, folder: Path, text: str) -> str:
        from orchestrator.cli import sensitive
        from orchestrator.cli.stack_artifact import Part

        path = self._path(folder, text)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise PystackError(f"{text}: {error.strerror}: it cannot be published") from None
        if path not in self._beside:
            self._beside[path] = Part(f"{_short(path)}.env", content, "variables")
            self.variables.append(f"{text}: all of the file")
            self.sensitive += [(text, kind) for kind in sensitive.found(content.decode(errors="replace"))]
        return self._beside[path].name

    def _replace(self, document: MarkedDocument, lines: list[str], at: tuple[str | int, ...], old: str, new: str) -> None:
        """Put *new* where *document* says *old*. Raises PystackError where it is not written as plain text."""
        mark = document.mark(at)
        line = lines[mark.line - 1]
        pattern = re.compile(rf"(?<![\w./-]){re.escape(old)}(?![\w./-])")
        found = pattern.search(line, mark.column - 1) or pattern.search(line)
        if found is None:
            raise PystackError(f"{mark}: {old}: it cannot be published from here: write the path on one line")
        lines[mark.line - 1] = line[: found.start()] + new + line[found.end() :]


def _short(path: Path) -> str:
    return hashlib.sha256(str(path).encode()).hexdigest()[:32]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _pairs(value: Any) -> Iterator[tuple[str, str]]:
    """Each variable of `environment:` in either form, with its value; "" where it has none."""
    for key, given in value.items() if isinstance(value, dict) else (str(v).partition("=")[::2] for v in _listed(value)):
        yield str(key), "" if given is None else str(given)


def _ask(loaded: Loaded, texts: Texts) -> None:
    """Show what others will read, and go on where the user agrees. Raises InterruptedByUserError."""
    from orchestrator.cli import sensitive

    leaking = list(texts.sensitive)
    for section in ("configs", "secrets"):
        for name, body in (loaded.document.get(section) or {}).items():
            path = loaded.directory / str((body or {}).get("file") or "")
            if path.is_file():
                text = path.read_text(errors="replace")
                leaking += [(f"{section}.{name}.file", kind) for kind in sensitive.found(text)]
    _confirm("sensitive data", [f'{kind}\n"{place}": {MASK}' for place, kind in leaking])
    _confirm("values of environment variables", texts.variables)
    binds = [f"{s.name}: {m.source} on {m.target}" for s in loaded.services for m in s.container.mounts if m.kind == "bind"]
    _confirm("the declarations of bind mounts (not what they hold)", binds)


def _confirm(what: str, lines: list[str]) -> None:
    if not lines:
        return
    click.echo(f"you are about to publish {what}; please check that nothing leaks:", err=True)
    for line in dict.fromkeys(lines):
        click.echo(line, err=True)
    try:
        if click.confirm(f"Are you ok to publish {what}?", default=False, err=True):
            return
    except click.Abort:
        pass
    raise InterruptedByUserError("nothing was published")
