"""`make bench`: all benchmarks, side by side in a lab; writes build/bench.json."""

from __future__ import annotations

from bench import idle, lan, loading, netplane, overlay, placement, store, up
from bench.bed import bed


def main() -> None:
    with bed() as made:
        rows = {**up.one(made), **up.stack(made), **loading.loading(made), **idle.idle(made)}
    up.write({**rows, **overlay.measure(), **placement.measure(), **netplane.measure(), **lan.measure(), **store.measure()})


if __name__ == "__main__":
    main()
