"""Sends a build's contexts to a node: of each folder only the files that an earlier build did not leave there."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli import context

if TYPE_CHECKING:
    from orchestrator.cli.client import Client

UNKNOWN = (404, 405)
"""How a node of an older version answers: it is sent everything."""


def send(client: Client, folder: Path, dockerfile: str) -> str:
    """The name by which the node knows the context *folder* from now on, which one build can use; "" where the node takes
    contexts only as a whole. Raises PystackError."""
    import msgspec

    from agent.contract.contexts import ContextAnswer, ContextOffer
    from orchestrator.errors import RefusedError

    listed = context.listing(folder, dockerfile)
    key = f"{socket.gethostname()} {os.getuid() if hasattr(os, 'getuid') else ''} {folder.resolve()} {dockerfile}"
    try:
        offer = msgspec.json.encode(ContextOffer(key=key, files=tuple((one.name, one.mark) for one in listed)))
    except UnicodeEncodeError:  # JSON cannot hold a name that is not UTF-8
        return ""
    where = f"{client.base}/pystack/build/contexts"
    try:
        raw = client.request("POST", where, body=offer, headers={"Content-Type": "application/json"}).read()
    except RefusedError as error:
        if error.status in UNKNOWN:
            return ""
        raise
    answer = msgspec.json.decode(raw, type=ContextAnswer)
    missing = set(answer.missing)
    missing |= {place for place, digest in answer.doubtful if not context.is_same(listed[place].path, digest)}
    if missing or answer.gone:
        body = context.pack_some(listed[place] for place in sorted(missing))
        client.request("PUT", f"{where}/{answer.id}", body=body).read()
    elif answer.doubtful:
        client.request("PUT", f"{where}/{answer.id}").read()
    return answer.id
