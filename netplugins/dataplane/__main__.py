from __future__ import annotations

import sys
from pathlib import Path

# nothing here speaks TLS, and asyncio does without where there is none: 4 MB of OpenSSL
sys.modules["ssl"] = None  # type: ignore[assignment]

import asyncio  # noqa: E402

from netplugins.dataplane.process import main  # noqa: E402

asyncio.run(main(Path(sys.argv[1])))
