"""`python -m agent`: the agent of one node, driven by a server on another host; `python -m agent join …` makes it a node."""

from __future__ import annotations

import sys

if sys.argv[1:2] == ["join"]:
    from agent.join_command import main as join

    join(sys.argv[2:])
else:
    from agent.daemon import main

    main()
