"""`python -m agent`: the agent of one node, driven by a server on another host."""

from __future__ import annotations

from agent.daemon import main

main()
