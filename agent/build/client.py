"""Who asked for a build, and what can be asked of them while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.contract.printable import quoted
from agent.errors import BadRequestError
from agent.images.auth import Credentials

if TYPE_CHECKING:
    from agent.build.contexts import Origin
    from agent.build.inputs import Inputs


class Client:
    """A client that sends everything with its request. A subclass fetches files and secrets as the build needs them."""

    lends = False
    """Whether the context is fetched on demand."""

    async def definition(self, inputs: Inputs) -> None:
        """Fetch the Dockerfile and the ignore rules of the context."""

    async def context(self, inputs: Inputs, wanted: Sequence[str]) -> None:
        """Fetch the context; if *wanted* is not empty, only these paths of it."""

    async def named(self, inputs: Inputs, name: str, folder: str) -> Origin:
        """Fetch the named context *name*, a folder of the client. Raises BadRequestError if there is none."""
        raise BadRequestError(f"context {quoted(name)}: the client lends no folder {quoted(folder)}")

    async def keep(self, inputs: Inputs) -> None:
        """The build has ended: keep what can be useful for the next one."""

    async def secret(self, ident: str) -> bytes | None:
        """The content of the secret *ident*, None if there is none."""
        del ident
        return None

    async def credentials(self, host: str) -> Credentials | None:
        """How to log in at the registry *host*."""
        del host
        return None

    async def has_agent(self, ident: str) -> bool:
        """Whether there is an SSH agent *ident*."""
        del ident
        return False

    async def forward(self, ident: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes between a program in the build and the SSH agent *ident*."""
