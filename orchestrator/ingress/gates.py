"""Gives HAProxys their configuration: a file in the container's memory, and the signal to read it."""

from __future__ import annotations

import asyncio
import time

from orchestrator.errors import PystackError
from orchestrator.ingress import files, haproxy
from orchestrator.transport.agent_client import AgentClient

TAKEN_S, SIGNAL_S, AGAIN_S = 10.0, 0.5, 0.05
"""How long a HAProxy may take to begin with it, and after how long it gets the signal once more."""


async def deliver(client: AgentClient, container: str, text: bytes, digest: str) -> None:
    """Return once *container* answers new connections by *text*. Raises PystackError with what HAProxy has against it."""
    await files.put(client, container, haproxy.FOLDER, {haproxy.FILE: text})
    began, signals = time.monotonic(), 0
    while await _version(client, container) != digest:
        took = time.monotonic() - began
        if signals <= took / SIGNAL_S:  # a HAProxy that has just begun loses it, and one amid a change too
            await client.call("POST", f"/containers/{container}/kill", params={"signal": "SIGUSR2"})
            signals += 1
        if took > TAKEN_S:
            alerts = [line for line in await client.tail(container, 20) if "ALERT" in line]
            raise PystackError(f"HAProxy does not take it: {'; '.join(alerts[-3:]) or 'no answer'}")
        await asyncio.sleep(AGAIN_S)


async def _version(client: AgentClient, container: str) -> str:
    try:
        found = await client.call("GET", f"/pystack/containers/{container}/http/", params={"socket": haproxy.VERSION_SOCKET})
    except PystackError:  # it has none yet, or begins
        return ""
    return str(found)
