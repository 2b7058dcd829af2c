"""`python -m agent join TOKEN@SERVER`: this machine becomes a node, by the agent that runs here, or by one that begins."""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import socket
import sys
from pathlib import Path

import msgspec

from agent import daemon
from agent.errors import AgentError
from agent.joining import JoinOptions, invitation_in, join
from agent.paths import Paths
from agent.uplink import Uplink


def _through_agent(path: Path, options: JoinOptions) -> str | None:
    """Have the agent at the socket *path* join; the node's name, None where no agent runs. Raises AgentError."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return None
        connection = http.client.HTTPConnection("node")
        connection.sock = sock
        try:
            connection.request("POST", "/pystack/uplink", body=msgspec.json.encode(options))
            reply = connection.getresponse()
            answer = json.loads(reply.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise AgentError(f"the agent at {path} does not answer: {error}") from None
    if reply.status >= 400:
        raise AgentError(str(answer["message"]))
    return str(answer["name"])


def main(arguments: list[str]) -> None:
    """Join, by the agent that runs here; where none does, be that agent afterwards."""
    parser = argparse.ArgumentParser(prog="agent join")
    parser.add_argument("join", metavar="TOKEN@SERVER")
    parser.add_argument("--name", default="")
    parser.add_argument("--underlay", default="")
    given = parser.parse_args(arguments)
    options = JoinOptions(join=_read(given.join), name=given.name, underlay=given.underlay)
    paths = daemon.prepared()
    try:
        name = _through_agent(paths.docker_socket, options)
        if name is None:
            name = asyncio.run(join(options, paths, _Kept(paths), ""))
            print(f"{name}: joined; its agent runs here now, in the foreground", flush=True)
            return daemon.main()
    except AgentError as error:
        print(f"pystack agent join: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    print(name)


class _Kept(Uplink):
    """What the agent that starts afterwards begins with: nothing is dialled yet."""

    def __init__(self, paths: Paths) -> None:
        super().__init__(paths.root, paths.run, paths.docker_socket)

    def start(self) -> None:
        """Nothing."""


def _read(text: str) -> str:
    """*text*, or what the file of that name has, or standard input: all users of the machine see a command line."""
    try:
        return sys.stdin.read().strip() if text == "-" else invitation_in(text)
    except OSError as error:
        print(f"pystack agent join: {text}: {error.strerror}", file=sys.stderr)
        raise SystemExit(1) from None
