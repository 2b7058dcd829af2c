"""The proxies' images, made of Debian's packages `caddy` and `haproxy`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from orchestrator.packaged_image import Recipe, archive, find, name_of

REPOSITORY, GATE_REPOSITORY = "pystack/ingress", "pystack/gate"
PASSWD = b"root:x:0:0:root:/:/\n"


def image(start: Mapping[str, object], given: str = "") -> tuple[str, str, bytes]:
    """The image's name, the package's version, and the image as a docker-archive; a proxy begins with the configuration
    *start*. *given* is the package's file, "" for what is installed or fetched. Raises PystackError."""
    with tempfile.TemporaryDirectory(prefix="pystack-ingress-") as folder:
        package = find("caddy", Path(folder), given)
        recipe = Recipe(
            repository=REPOSITORY,
            program="usr/bin/caddy",
            files={"etc/caddy/start.json": json.dumps(start).encode(), "etc/passwd": PASSWD},
            folders={"run/caddy": 0, "run/gate": 0},
            made_by="pystack ingress up",
        )
        return name_of(package, REPOSITORY), package.version, archive(package, recipe)


def gate_image(start: str, given: str = "") -> tuple[str, bytes]:
    """The name of HAProxy's image, and the image as a docker-archive; it begins with the configuration *start*. *given* is the
    package's file, "" for what is installed or fetched. Raises PystackError."""
    with tempfile.TemporaryDirectory(prefix="pystack-ingress-") as folder:
        package = find("haproxy", Path(folder), given)
        recipe = Recipe(
            repository=GATE_REPOSITORY,
            program="usr/sbin/haproxy",
            files={"etc/haproxy/start.cfg": start.encode(), "etc/passwd": PASSWD},
            folders={"run/haproxy": 0, "run/gate": 0},
            made_by="pystack ingress up --haproxy",
        )
        return name_of(package, GATE_REPOSITORY), archive(package, recipe)
