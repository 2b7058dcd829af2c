"""Engine API: limits of bandwidth, asked for as driver options of an endpoint, or for a container that is there.

`docker run --network name=front,driver-opt=pystack.ingress=20mbit` and `pystack container update --bandwidth` come to this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.contract.bandwidth import Bandwidth, merged, parse_rate
from agent.engine import changing
from agent.engine.engine import Engine
from agent.engine.records import Record
from agent.errors import BadRequestError, NotFoundError

PREFIX = "pystack."
FIELDS = ("ingress", "egress", "burst")


def of_options(network: str, options: Mapping[str, str]) -> Bandwidth | None:
    """The limits among an endpoint's driver options. Raises BadRequestError."""
    return merged(_read(network, {name: options[PREFIX + name] for name in FIELDS if PREFIX + name in options}))


def _read(network: str, fields: Mapping[str, Any]) -> Bandwidth:
    try:
        rates = {name: parse_rate(fields[name]) for name in ("ingress", "egress") if name in fields}
        burst = {"burst": int(fields["burst"])} if "burst" in fields else {}
        return Bandwidth(**rates, **burst)
    except ValueError as error:
        raise BadRequestError(f"network {network}: {error}") from None


async def update(engine: Engine, record: Record, entries: Sequence[dict[str, Any]]) -> None:
    """Set the limits of *entries*, each over what there was, at once and with no connection lost. Raises AgentError, and
    all is then as it was."""
    wanted: dict[str, Bandwidth | None] = {}
    for entry in entries:
        fields = {name: entry[name.capitalize()] for name in FIELDS if name.capitalize() in entry}
        asked = entry.get("Network", "")
        networks = [e.network for e in record.endpoints if asked in ("", e.network)]
        if not networks:
            raise NotFoundError(
                f"container {record.name} is not on {f'network {asked}' if asked else 'any network of its own'}"
            )
        for name in networks:
            wanted[name] = merged(_read(name, fields), wanted.get(name) or _now(record, name))
    if wanted:
        await changing.limit(engine.context, record, wanted)


def _now(record: Record, network: str) -> Bandwidth | None:
    return next((e.bandwidth for e in record.endpoints if e.network == network), None)


def shown(bandwidth: Bandwidth) -> dict[str, int]:
    """As `inspect` shows it: bits a second and bytes, 0 for no limit."""
    return {name.capitalize(): getattr(bandwidth, name) or 0 for name in FIELDS}


def limits(record: Record) -> dict[str, dict[str, int]]:
    """Interface → what `stats` says of its limits, in bits a second."""
    return {
        e.interface or f"eth{e.order}": {"rx_limit": e.bandwidth.ingress or 0, "tx_limit": e.bandwidth.egress or 0}
        for e in record.endpoints
        if e.bandwidth
    }
