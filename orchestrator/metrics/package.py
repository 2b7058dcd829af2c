"""Prometheus' image, made of Debian's package `prometheus`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from orchestrator.metrics.prometheus import DATA, USER
from orchestrator.packaged_image import Recipe, archive, find, name_of

REPOSITORY = "pystack/prometheus"


def image(given: str = "") -> tuple[str, bytes]:
    """The image's name, and the image as a docker-archive. *given* is the package's file, "" for what is installed or fetched.
    The pages of its own web server are whole only where the package is installed: they lead to others' files.

    Raises PystackError."""
    with tempfile.TemporaryDirectory(prefix="pystack-monitoring-") as folder:
        package = find("prometheus", Path(folder), given)
        passwd = f"root:x:0:0:root:/:/\nprometheus:x:{USER}:{USER}:prometheus:/:/\n"
        files = {"etc/passwd": passwd.encode(), **dict(package.files("usr/share/prometheus/web"))}
        recipe = Recipe(
            repository=REPOSITORY,
            program="usr/bin/prometheus",
            files=files,
            folders={DATA.lstrip("/"): USER},
            made_by="pystack monitoring up",
        )
        return name_of(package, REPOSITORY), archive(package, recipe)
