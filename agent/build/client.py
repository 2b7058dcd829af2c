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
    """A client that has sent all that it has, in the request. Others are asked for it as the build needs it."""

    lends = False
    """Whether the context comes when it is asked for."""

    async def definition(self, inputs: Inputs) -> None:
        """Bring the Dockerfile beside the context, and what rules say what the context leaves out."""

    async def context(self, inputs: Inputs, wanted: Sequence[str]) -> None:
        """Bring the context, or no more of it than *wanted*, where that is said."""

    async def named(self, inputs: Inputs, name: str, folder: str) -> Origin:
        """Bring the further context *name*, a folder of the client's. Raises BadRequestError where there is none."""
        raise BadRequestError(f"context {quoted(name)}: the client lends no folder {quoted(folder)}")

    async def keep(self, inputs: Inputs) -> None:
        """The build has ended: what can be of use to the next one is put aside."""

    async def secret(self, ident: str) -> bytes | None:
        """What the secret *ident* contains; None where there is none."""
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
