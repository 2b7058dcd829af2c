"""The overlay driver: a bridge on each node, and a VXLAN device that connects them, without learning and flooding.

The plan knows where each endpoint is: a remote one has an FDB entry (frames to its MAC go to its node) and a neighbour
entry (the bridge answers ARP and ND for it), written before a container starts. Learning is off, and the source address
set: learning would hide a missing entry until the learned one ages (moby#52661), and without a fixed source address every
connection dies once a peer sees another one (moby#53004). Packets of an encrypted network go through a WireGuard device.
Source: RFC 7348; ip-link(8); bridge(8).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import msgspec

from netplugins.bridge import OPTION, BridgeDriver, address_mac
from netplugins.driver import Bridge, Endpoint, FdbEntry, HostCapabilities, Network, NetworkState, Vxlan

OVERHEAD = {4: 50, 6: 70}
"""Bytes that VXLAN adds to a packet, by the underlay's version of IP (RFC 7348 §5)."""


class OverlayDriver:
    """Driver `overlay`; its links begin with *prefix*."""

    name = "overlay"

    def __init__(self, prefix: str = "ps") -> None:
        self.prefix = prefix
        self._bridge = BridgeDriver(prefix)

    def missing(self, network: Network, host: HostCapabilities) -> Sequence[str]:
        """See `Driver.missing`."""
        missing = [kind for kind in ("bridge", "vxlan") if kind not in host.features]
        out = [f"the kernel has no {kind} (CONFIG_{kind.upper()})" for kind in missing]
        if network.tunnel and "wireguard" not in host.features:
            out.append("the network is encrypted, and the host has no WireGuard: `modprobe wireguard`, or install wireguard-go")
        return out

    def desired_state(self, network: Network, endpoints: Sequence[Endpoint], host: HostCapabilities) -> NetworkState:
        """A bridge network, with the VXLAN device and an FDB entry for every remote endpoint. See `Driver.desired_state`."""
        family = ipaddress.ip_address(network.underlay).version if network.underlay else 4
        room = network.tunnel.mtu if network.tunnel else host.mtu
        wanted = network.options.get(OPTION + "driver.mtu") or str(room - OVERHEAD[family])
        inner = msgspec.structs.replace(network, options=network.options | {OPTION + "driver.mtu": wanted})
        local = self._bridge.desired_state(inner, endpoints, host)
        if not network.underlay:  # a single node: there is no other to reach
            return local
        name = f"{self.prefix}x{network.vni:x}"
        vxlan = Vxlan(
            name=name, master=network.link, vni=network.vni, port=network.vxlan_port, local=network.underlay, mtu=int(wanted)
        )
        bridge = next(o for o in local.objects if isinstance(o, Bridge))
        objects = local.objects
        if network.own:
            # the gateway's address is the same on every node: the node itself must send from its own, so that replies come
            # back to it, and needs a MAC of its own, so that frames for it differ from those for other nodes
            lengths = {ipaddress.ip_network(s.cidr).version: s.cidr.split("/")[1] for s in network.subnets}
            own = tuple(f"{a}/{lengths[ipaddress.ip_address(a).version]}" for a in network.own)
            known = msgspec.structs.replace(
                bridge,
                mac=address_mac(*network.own[:1]) if ":" not in network.own[0] else address_mac("", network.own[0]),
                addresses=(*own, *bridge.addresses),
                filtered=network.balanced,
            )
            objects = (objects - {bridge}) | {known}
        far = frozenset(
            FdbEntry(
                bridge=network.link,
                vxlan=name,
                mac=r.mac or address_mac(r.ipv4, r.ipv6),
                underlay=r.underlay,
                addresses=tuple(a for a in (r.ipv4, r.ipv6) if a),
            )
            for r in network.remotes
            if r.underlay and r.underlay != network.underlay
        )
        tunnels = {network.tunnel} if network.tunnel else set()
        return NetworkState(objects | {vxlan} | tunnels, local.firewall, far)
