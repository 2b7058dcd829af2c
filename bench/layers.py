"""A container of an image with many layers beside one of an image with a single one. `python -m bench.layers` runs it alone."""

from __future__ import annotations

import statistics
import sys

from bench.environment import Environment
from bench.rows import Row, row, size
from tests.images import archive, busybox_rootfs, tar_of

COUNTS = (1, size(127, 2), size(500, 3))
ROUNDS = size(15, 1)


def measure(environment: Environment) -> dict[str, Row]:
    """`container run --rm`, in turns, with the node's user namespace and with one of the container's own."""
    for count in COUNTS:
        layers = [busybox_rootfs(), *(tar_of({f"srv/f{n}": b"x"}) for n in range(1, count))]
        path = archive(environment.root / "layers.tar", layers, name=f"docker.io/library/layers:{count}")
        environment.pystack("image", "load", "-i", str(path))
        path.unlink()
    took: dict[tuple[int, str], list[float]] = {(count, mode): [] for count in COUNTS for mode in ("host", "auto")}
    for _ in range(ROUNDS):  # in turns: the machine's mood is the same for all
        for (count, mode), times in took.items():
            times.append(environment.pystack("container", "run", "--rm", "--userns", mode, f"layers:{count}", "true"))
    middle = {case: statistics.median(times) for case, times in took.items()}
    return {
        f"run_{count}_layers{'_userns' if mode == 'auto' else ''}": row(middle[count, mode], middle[1, mode])
        for count, mode in took
        if count > 1
    }


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["layers", *sys.argv[1:]]))
