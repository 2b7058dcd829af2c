"""The version of what the store holds: a server that is too old for it refuses, and does not guess."""

from __future__ import annotations

import msgspec

from agent.contract.wire import WireStruct
from orchestrator import __version__
from orchestrator.errors import PystackError
from orchestrator.store.interface import Put, Store

KEY = "format"
FORMAT = 1
"""Grows when what an older server would misread is written; fields that it can do without are added within one format."""


class StoreFormat(WireStruct, frozen=True, kw_only=True):
    """*format* of what is stored, and the version of the server (*written_by*) that wrote it so."""

    format: int = FORMAT
    written_by: str = ""


async def claim(store: Store) -> None:
    """Note that this version writes to *store* from now on. Raises PystackError where a newer format is in it, StoreError."""
    entry = await store.get(KEY)
    found = msgspec.json.decode(entry.value, type=StoreFormat) if entry else None
    if found and found.format > FORMAT:
        raise PystackError(
            f"the store was written by pystack {found.written_by} in format {found.format}, and this is {__version__}, which "
            f"knows {FORMAT}: start the newer version, or restore a backup that this one made"
        )
    wanted = StoreFormat(written_by=__version__)
    if found != wanted:
        await store.transact((), [Put(KEY, msgspec.json.encode(wanted))])
