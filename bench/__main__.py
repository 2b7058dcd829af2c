"""`make bench`: all benchmarks, side by side in a lab; writes build/bench.json. `python -m bench.host` and the like run one."""

from __future__ import annotations

from bench import fleet, gitops, host, idle, lan, layers, loading, netplane, overlay, placement, store, up
from bench.bed import bed


def main() -> None:
    with bed() as made:
        rows: dict[str, up.Row] = {}
        for measure in (up.one, up.stack, layers.start, loading.loading, idle.idle, host.measure):
            rows |= measure(made)
            up.write(rows)  # what was measured is kept, whatever comes after
    for part in (overlay, placement, netplane, lan, store, gitops, fleet):
        rows |= part.measure()
        up.write(rows)


if __name__ == "__main__":
    main()
