"""The variables that a file is read with: the environment, and below it `.env` or what `--env-file` and `env_file` name.

Source: Compose Specification, 12-interpolation.md, 14-include.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.stackfile import envfile
from orchestrator.stackfile.interpolate import InvalidError
from orchestrator.stackfile.problem import Mark, Problem, StackFileError


def variables_of(
    directory: Path, env_files: Sequence[str], environment: Mapping[str, str], nearer: Path | None = None
) -> dict[str, str]:
    """.env of *directory*, and over it that of *nearer*, or else *env_files*, all below *environment*, which wins.

    Raises StackFileError."""
    out: dict[str, str] = {}
    own = dict.fromkeys((directory / ".env", nearer / ".env") if nearer else (directory / ".env",))
    if environment.get("COMPOSE_DISABLE_ENV_FILE", "").lower() in ("1", "true"):
        own = {}
    for path in [Path(f) for f in env_files] or own:
        if not env_files and not path.is_file():
            continue
        try:
            values = envfile.read(path, {**out, **environment})
        except (InvalidError, OSError) as error:
            raise StackFileError([Problem(where=Mark(str(path), 0, 0), what="cannot be read", why=str(error))]) from error
        out.update({k: v for k, v in values.items() if v is not None})
    return {**out, **environment}
