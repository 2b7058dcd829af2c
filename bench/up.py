"""`up` of 50 one-container services, `up` again, `ps`, `down`; and one `container run --rm`."""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import sys
from collections.abc import Iterator

from bench.environment import Environment, docker, floor, runc_config
from bench.rows import Row, row, size

COUNT, ROUNDS, RUNS = size(50, 2), size(5, 1), size(9, 1)


def measure(environment: Environment) -> dict[str, Row]:
    """Rows of one container and of the stack."""
    return {**one(environment), **stack(environment)}


def stack(environment: Environment) -> dict[str, Row]:
    """Rows of `up`, `up` again, `ps` and `down` of a stack of COUNT services, in seconds."""
    folder = environment.root / "fifty"
    folder.mkdir()
    file = folder / "docker-compose.yml"
    lines = [f"  s{n}: {{image: busybox, command: sleep 1000, stop_grace_period: 0s}}" for n in range(COUNT)]
    file.write_text("version: '3.8'\nservices:\n" + "\n".join(lines) + "\n")
    took: dict[str, list[float]] = {name: [] for name in ("floor", "up", "again", "ps", "down", "python")}
    for _ in range(ROUNDS):  # paired: the machine's mood is the same for all
        took["floor"].append(floor(environment, COUNT))
        took["up"].append(environment.pystack("-f", str(file), "up", "--progress", "quiet"))
        took["again"].append(environment.pystack("-f", str(file), "up", "--progress", "quiet"))
        took["ps"].append(environment.pystack("-f", str(file), "ps", "--format", "json"))
        took["down"].append(environment.pystack("-f", str(file), "down", "--progress", "quiet"))
        took["python"].append(environment.timed([sys.executable, "-c", "pass"]))
    middle = {name: statistics.median(values) for name, values in took.items()}
    rows = {
        "up50_vs_floor": row(middle["up"], middle["floor"]),
        "up50_again": row(middle["again"], middle["floor"]),
        "ps50": row(middle["ps"], middle["python"]),
    }
    with docker(environment) as there:
        if there:
            compose = ["docker-compose", "-f", str(file)]
            ups, downs = [], []
            for _ in range(2):
                ups.append(environment.docker(*compose, "up", "-d"))
                downs.append(environment.docker(*compose, "down", "-t", "0"))
            rows["up50_vs_compose"] = row(middle["up"], min(ups))
            rows["down50_vs_compose"] = row(middle["down"], min(downs))
            rows["run_rm_vs_docker"] = row(
                statistics.median(environment.pystack("container", "run", "--rm", "busybox", "true") for _ in range(RUNS)),
                statistics.median(environment.docker("/usr/bin/docker", "run", "--rm", "busybox", "true") for _ in range(5)),
            )
    return rows


@contextlib.contextmanager
def bare_container(environment: Environment) -> Iterator[str]:
    """A command of the shell: bare `runc run` of busybox's `true`, on an overlay of its own, with no network."""
    work = environment.root / "bare"
    for part in ("upper", "work", "rootfs"):
        (work / part).mkdir(parents=True)
    (work / "config.json").write_text(json.dumps(runc_config(str(work / "rootfs"), "", ["true"])))
    layer = next((environment.root / "layers").iterdir())
    try:
        yield (
            f"mount -t overlay overlay -o lowerdir={layer},upperdir={work}/upper,workdir={work}/work {work}/rootfs"
            f" && runc run --bundle {work} bare </dev/null; umount {work}/rootfs"
        )
    finally:
        shutil.rmtree(work)


def one(environment: Environment) -> dict[str, Row]:
    """`container run --rm` beside bare `runc run` of the same image on an overlay of its own, with no network."""
    with bare_container(environment) as bare_run:
        bare = statistics.median(environment.on_node("bash", "-c", bare_run) for _ in range(RUNS))
    ours = statistics.median(environment.pystack("container", "run", "--rm", "busybox", "true") for _ in range(RUNS))
    return {"run_rm_vs_runc": row(ours, bare)}


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["up", *sys.argv[1:]]))
