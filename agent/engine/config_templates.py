"""Configs and secrets that are templates (`template_driver: golang`), filled in for one container.

Source: Docker CLI reference, `docker config create --template-driver`; Docker's manual, "Store configuration data using Docker
Configs", templates.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.contract.container import Container, File
from agent.contract.golang_template import TemplateError, expand
from agent.errors import BadRequestError
from agent.images.types import RunConfig


def filled(file: File, container: Container, image: RunConfig, content_of: Callable[[File], bytes]) -> bytes:
    """The content of the template *file*: it can use its task, variables of the container, other configs and secrets.

    Raises BadRequestError with the line of the mistake."""
    variables = dict(v.partition("=")[::2] for v in image.env or ()) | dict(container.environment)

    def reader(*, secret: bool) -> Callable[[str], str]:
        def read(name: str) -> str:
            found = next((f for f in container.files if f.secret == secret and name in _names(f)), None)
            if found is None:
                raise LookupError(f"the service has no {'secret' if secret else 'config'} {name!r}")
            return content_of(found).decode()

        return read

    functions = {"env": lambda name: variables.get(name, ""), "secret": reader(secret=True), "config": reader(secret=False)}
    kind = "secret" if file.secret else "config"
    try:
        return expand(content_of(file).decode(), _values(file), functions).encode()
    except TemplateError as error:
        raise BadRequestError(f"{kind} {file.source}, line {error.line}: {error}") from None
    except UnicodeDecodeError:
        raise BadRequestError(f"{kind} {file.source} is a template, and what it is made of is not UTF-8") from None


def _names(file: File) -> tuple[str, str, str]:
    return file.source, file.target, Path(file.target).name


def _values(file: File) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in file.template:
        *above, last = name.split("\x1f")
        at = out
        for part in above:
            at = at.setdefault(part, {})
        at[last] = value
    return out
