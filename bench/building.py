"""Ten stages built beside buildah: cold, with one file changed, with nothing changed. `python -m bench.building` runs it."""

from __future__ import annotations

import shutil
import statistics
import sys
import uuid
from pathlib import Path

from bench.environment import Environment
from bench.rows import Row, row, size
from tests.images import archive, busybox_rootfs

STAGES = size(10, 2)
ROUNDS = size(3, 1)
CASES = ("cold", "changed", "unchanged")


def measure(environment: Environment) -> dict[str, Row]:
    """In turns, each with a cache of its own; nothing where buildah is not installed."""
    if not shutil.which("buildah"):
        print("buildah is not installed (`apt-get install buildah`): no rival")
        return {}
    work = environment.root / "building"
    work.mkdir()
    base = archive(work / "busybox.tar", [busybox_rootfs()], name="docker.io/library/busybox:latest")
    environment.pystack("image", "load", "-i", str(base))
    rival = ["buildah", "--root", str(work / "storage"), "--runroot", str(work / "run"), "--storage-driver", "overlay"]
    environment.on_node(*rival, "pull", "-q", f"oci-archive:{base}")
    environment.on_node(
        "sh", "-c", f"{' '.join(rival)} tag $({' '.join(rival)} images -q | head -1) docker.io/library/busybox:latest"
    )
    took: dict[tuple[str, str], list[float]] = {(who, case): [] for who in ("pystack", "buildah") for case in CASES}
    for _ in range(ROUNDS):
        for who in ("pystack", "buildah"):
            folder = _project(work / uuid.uuid4().hex)
            for case in CASES:
                if case == "changed":
                    (folder / "f0").write_text("changed")
                took[who, case].append(_build(environment, who, folder, rival))
    middle = {key: statistics.median(times) for key, times in took.items()}
    return {f"build_{case}": row(middle["pystack", case], middle["buildah", case]) for case in CASES}


def _project(folder: Path) -> Path:
    """Stages of five steps, and one more that takes a file of each. No other project has the same steps."""
    folder.mkdir()
    lines = []
    for number in range(STAGES):
        (folder / f"f{number}").write_text(f"file {number}")
        lines += [
            f"FROM busybox AS s{number}",
            f"COPY f{number} /in",
            f"RUN cat /in > /a; echo {folder.name} {number} >> /a",
            "RUN sha256sum /a > /b",
            "RUN cat /a /b > /c",
            "RUN wc -c /c > /out",
        ]
    lines += ["FROM busybox", *(f"COPY --from=s{number} /out /out{number}" for number in range(STAGES))]
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")
    (folder / "stack.yml").write_text(f"services:\n  a: {{build: ., image: 'built:{folder.name}'}}\n")
    (folder / ".dockerignore").write_text("stack.yml\n")
    return folder


def _build(environment: Environment, who: str, folder: Path, rival: list[str]) -> float:
    if who == "pystack":
        return environment.pystack("-f", str(folder / "stack.yml"), "build")
    isolation = ["--isolation", "oci", "--runtime", "runc", "--network", "host"]
    return environment.on_node(*rival, "build", "--layers", *isolation, "-q", "-t", f"built:{folder.name}", str(folder))


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["building", *sys.argv[1:]]))
