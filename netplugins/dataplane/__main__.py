"""The process's command line: `python -m netplugins.dataplane DIRECTORY`."""

from __future__ import annotations

import sys
from pathlib import Path

# nothing here needs TLS, and asyncio works without: OpenSSL takes 4 MB of memory
sys.modules["ssl"] = None  # type: ignore[assignment]

import asyncio  # noqa: E402

from netplugins.dataplane.process import main  # noqa: E402

asyncio.run(main(Path(sys.argv[1])))
