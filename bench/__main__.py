"""`make bench`: all benchmarks, side by side in a lab; writes build/bench.json. `python -m bench.host` and the like run one."""

from __future__ import annotations

from bench import fleet, host, idle, lan, loading, netplane, overlay, placement, store, up
from bench.bed import bed


def main() -> None:
    with bed() as made:
        rows = {**up.one(made), **up.stack(made), **loading.loading(made), **idle.idle(made), **host.measure(made)}
    for part in (overlay, placement, netplane, lan, store, fleet):
        rows |= part.measure()
    up.write(rows)


if __name__ == "__main__":
    main()
