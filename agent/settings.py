"""`config.yml` of an instance: registries, mirrors, address pools."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec
import yaml

from agent.errors import BadRequest
from agent.paths import Paths


class Registry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """*mirrors* are asked first, in order: URLs such as http://10.0.0.5:5000. *insecure* allows plain HTTP and any
    certificate."""

    mirrors: tuple[str, ...] = ()
    insecure: bool = False


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    registries: dict[str, Registry] = {}
    address_pools: tuple[str, ...] = ("172.16.0.0/12", "192.168.0.0/16")
    runtime: Literal["auto", "runc", "crun"] = "auto"
    """auto: crun where it is installed and works, else runc."""
    labels: dict[str, str] = {}
    """The engine's own labels, for `engine.labels.…` in placement constraints."""
    log_max_size: str = ""
    heal: bool = True
    """Whether what somebody else changes of our links, entries and rules is put right at once. Off, `pystack doctor` shows
    it, and `--repair` puts it right."""
    docker_config: str = ""
    """Folder of Docker's config.json with the registry credentials; DOCKER_CONFIG or ~/.docker where it is not said."""


def load(paths: Paths) -> Settings:
    """Read the settings; an absent file is all defaults. Raises BadRequest with the file and the fault."""
    fallback = Path("/etc/pystack/config.yml") if paths.tag == "" else paths.root / "config.yml"
    path = Path(os.environ.get("PYSTACK_CONFIG", fallback))
    if not path.exists():
        return Settings()
    try:
        return msgspec.convert(yaml.safe_load(path.read_text()) or {}, Settings)
    except (yaml.YAMLError, msgspec.ValidationError, OSError) as error:
        raise BadRequest(f"{path}: {error}") from error
