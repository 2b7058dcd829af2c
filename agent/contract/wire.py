"""The base of all that crosses the wire between the control plane and a node."""

from __future__ import annotations

import msgspec


class WireStruct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all messages: immutable, encoded without fields that have their default."""
