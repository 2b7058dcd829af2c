"""What members of etcd are asked for maintenance, by etcd's JSON gateway: the descriptors that the store uses are too old.

Source: etcd 3.4, rpc.proto, services Cluster and Maintenance; numbers of 64 bits are texts there.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from orchestrator.errors import PystackError
from orchestrator.managed.settings import MemberFolder, client_url

ANSWER_S = 5.0
DEFRAGMENT_S = 120.0
"""A member answers nothing else while it writes its file again."""


class GatewayError(PystackError):
    """A member does not answer, or refuses."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A member as etcd lists it; *name* is "" for one that has never started. A *learner* does not vote."""

    id: str
    name: str
    address: str
    learner: bool


class MemberStatus(msgspec.Struct, frozen=True, kw_only=True):
    """*size* and *used* are bytes of its file, and of what is in it; *index* counts the changes that it has."""

    version: str
    size: int
    used: int
    index: int
    leader: str
    revision: int


class Gateway:
    """The gateway of the member at *address*."""

    def __init__(self, folder: MemberFolder, address: str) -> None:
        self._url = urlsplit(client_url(address))
        self._context = ssl.create_default_context(cafile=str(folder.ca))
        self._context.load_cert_chain(folder.cert, folder.key)

    def call(self, path: str, body: Mapping[str, Any] | None = None, *, within_s: float = ANSWER_S) -> dict[str, Any]:
        """The answer of `/v3/PATH`. Raises GatewayError."""
        where = f"etcd at {self._url.netloc}"
        connection = http.client.HTTPSConnection(
            self._url.hostname or "", self._url.port, timeout=within_s, context=self._context
        )
        try:
            connection.request("POST", f"/v3/{path}", json.dumps(body or {}), {"Content-Type": "application/json"})
            reply = connection.getresponse()
            found = json.loads(reply.read() or b"{}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise GatewayError(f"{where} does not answer: {error}") from None
        finally:
            connection.close()
        if reply.status != 200 or "error" in found:
            raise GatewayError(f"{where} refuses: {found.get('message') or found.get('error')}")
        assert isinstance(found, dict)
        return found

    def members(self) -> list[Member]:
        """Raises GatewayError."""
        return [
            Member(
                id=str(m["ID"]),
                name=m.get("name", ""),
                address=urlsplit(m["peerURLs"][0]).hostname or "",
                learner=bool(m.get("isLearner")),
            )
            for m in self.call("cluster/member/list").get("members", [])
        ]

    def status(self) -> MemberStatus:
        """Raises GatewayError."""
        found = self.call("maintenance/status")
        return MemberStatus(
            version=found.get("version", ""),
            size=int(found.get("dbSize", 0)),
            used=int(found.get("dbSizeInUse", 0)),
            index=int(found.get("raftIndex", 0)),
            leader=str(found.get("leader", "")),
            revision=int(found.get("header", {}).get("revision", 0)),
        )

    def has_quorum(self) -> bool:
        """Whether the member answers a read that all must agree on."""
        try:
            self.call("kv/range", {"key": "AA==", "count_only": True})
        except GatewayError:
            return False
        return True

    def alarms(self) -> list[tuple[str, str]]:
        """The ID of a member, and its alarm: NOSPACE or CORRUPT. Raises GatewayError."""
        found = self.call("maintenance/alarm", {"action": "GET"}).get("alarms", [])
        return [(str(a["memberID"]), str(a.get("alarm", "NONE"))) for a in found]

    def disarm(self, member: str, alarm: str) -> None:
        """Raises GatewayError."""
        self.call("maintenance/alarm", {"action": "DEACTIVATE", "memberID": member, "alarm": alarm})

    def defragment(self) -> None:
        """Raises GatewayError."""
        self.call("maintenance/defragment", within_s=DEFRAGMENT_S)
