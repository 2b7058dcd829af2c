"""`python -m agent`: one node's agent alone, driven by a server somewhere else."""

from __future__ import annotations

from agent.daemon import main

main()
