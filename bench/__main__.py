"""`make bench`: all benchmarks, side by side in one lab; writes build/bench.json."""

from __future__ import annotations

from bench import idle, up
from bench.bed import bed


def main() -> None:
    with bed() as made:
        up.write({**up.one(made), **up.stack(made), **idle.idle(made)})


if __name__ == "__main__":
    main()
