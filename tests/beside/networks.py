"""Networks: every parameter of create and connect, lists, prune."""

from __future__ import annotations

from typing import Any

from docker.types import IPAMConfig, IPAMPool

from tests.beside.look import Look, skeleton

WISHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "driver": {"driver": "bridge"},
    "labels": {"labels": {"a": "b"}},
    "internal": {"internal": True},
    "attachable": {"attachable": True},
    "options": {"options": {"com.docker.network.bridge.enable_icc": "false", "com.docker.network.driver.mtu": "1400"}},
    "ipam": {
        "ipam": IPAMConfig(
            driver="default",
            pool_configs=[
                IPAMPool(
                    subnet="10.77.0.0/24", iprange="10.77.0.128/25", gateway="10.77.0.254", aux_addresses={"a": "10.77.0.5"}
                )
            ],
        )
    },
    "ipam options": {"ipam": IPAMConfig(driver="default", options={"foo": "bar"})},
    "ipv6": {"enable_ipv6": True, "ipam": IPAMConfig(pool_configs=[IPAMPool(subnet="fd12:77::/64")])},
    "scope": {"scope": "local"},
    "check": {"check_duplicate": True},
    "ingress": {"ingress": False},
}
BAD: dict[str, dict[str, Any]] = {
    "driver": {"driver": "bogus"},
    "subnet": {"ipam": IPAMConfig(pool_configs=[IPAMPool(subnet="bogus")])},
    "gateway": {"ipam": IPAMConfig(pool_configs=[IPAMPool(subnet="10.78.0.0/24", gateway="10.79.0.1")])},
    "range": {"ipam": IPAMConfig(pool_configs=[IPAMPool(subnet="10.78.0.0/24", iprange="10.79.0.0/24")])},
    "option": {"options": {"com.docker.network.driver.mtu": "x"}},
    "ipam driver": {"ipam": IPAMConfig(driver="bogus")},
    "overlay": {"driver": "overlay"},
    "host": {"driver": "host"},
    "null": {"driver": "null"},
    "scope": {"scope": "bogus"},
}


def _shown(found: dict[str, Any]) -> dict[str, Any]:
    if not any("77" in (c.get("Subnet") or "") for c in found["IPAM"]["Config"] or ()):
        found["IPAM"]["Config"] = skeleton(found["IPAM"]["Config"])
    return found


def created(look: Look) -> None:
    for label, wish in WISHES.items():
        name = look.name("n")
        answer = look.c.create_network(name, **wish)
        look.later(look.c.remove_network, answer["Id"])
        look.see(f"{label}: answer", answer)
        look.see(label, _shown(look.c.inspect_network(answer["Id"])))
    for label, wish in BAD.items():
        look.fails(f"bad {label}", look.c.create_network, (name := look.name("n")), **wish)
        look.later(look.c.remove_network, name)
    taken = look.name("n")
    look.network(name=taken)
    look.fails("taken", look.c.create_network, taken, check_duplicate=True)
    look.fails(
        "overlap", look.c.create_network, look.name("n"), ipam=IPAMConfig(pool_configs=[IPAMPool(subnet="10.77.0.0/25")])
    )
    for word in ("bridge", "host", "none"):
        look.fails(f"builtin {word}", look.c.create_network, word)
        look.fails(f"remove {word}", look.c.remove_network, word)
        found = look.c.inspect_network(word)
        look.see(
            f"inspect {word}",
            {
                k: found[k]
                for k in ("Name", "Scope", "Driver", "EnableIPv6", "Internal", "Attachable", "Ingress", "ConfigOnly", "Labels")
            },
        )
    look.fails("empty", look.c.create_network, "")
    look.fails("bad name", look.c.create_network, "a/b")
    look.fails("remove what is not there", look.c.remove_network, "nosuch")
    look.fails("inspect what is not there", look.c.inspect_network, "nosuch")
    look.see("verbose", skeleton(look.c.inspect_network(taken, verbose=True)["Name"]))
    look.see("in scope", look.c.inspect_network(taken, scope="local")["Name"])
    look.fails("in other scope", look.c.inspect_network, taken, scope="swarm")


def connected(look: Look) -> None:
    first = look.name("n")
    ident = look.network(name=first, ipam=IPAMConfig(pool_configs=[IPAMPool(subnet="10.76.0.0/24")]))
    six = look.name("n")
    look.network(
        name=six,
        enable_ipv6=True,
        ipam=IPAMConfig(pool_configs=[IPAMPool(subnet="10.75.0.0/24"), IPAMPool(subnet="fd12:75::/64")]),
    )
    made = look.made(start=True, name=look.name())
    other = look.made(start=True, name="beside-other")

    def endpoint(network: str = first, of: str = made) -> Any:
        found = look.c.inspect_container(of)["NetworkSettings"]["Networks"].get(network)
        if found and found["Aliases"]:
            found["Aliases"] = [a for a in found["Aliases"] if a != of[:12]]
        return found

    for label, wish in {
        "plain": {},
        "address": {"ipv4_address": "10.76.0.77"},
        "aliases": {"aliases": ["a1", "a2"]},
        "links": {"links": [("beside-other", "al")]},
        "link local": {"link_local_ips": ["169.254.8.8"]},
        "mac": {"mac_address": "02:42:ac:11:00:77"},
        "options": {"driver_opt": {"com.docker.x": "y"}},
    }.items():
        look.fails(label, look.c.connect_container_to_network, made, first, **wish)
        look.see(f"{label}: endpoint", {k: v for k, v in (endpoint() or {}).items() if k != "DNSNames"})
        look.fails(f"{label}: left", look.c.disconnect_container_from_network, made, first)
    look.fails("both", look.c.connect_container_to_network, made, six, ipv4_address="10.75.0.9", ipv6_address="fd12:75::9")
    found = endpoint(six)
    look.see(
        "both: endpoint",
        [
            found["IPAddress"],
            found["GlobalIPv6Address"],
            found["IPAMConfig"],
            found["IPPrefixLen"],
            found["GlobalIPv6PrefixLen"],
        ],
    )
    look.see("members", skeleton(list(look.c.inspect_network(six)["Containers"].values())))
    look.see("member names", [c["Name"] for c in look.c.inspect_network(six)["Containers"].values()])
    look.fails("again", look.c.connect_container_to_network, made, six)
    look.fails("remove in use", look.c.remove_network, six)
    look.c.connect_container_to_network(made, first)
    look.fails("taken address", look.c.connect_container_to_network, other, first, ipv4_address=endpoint()["IPAddress"])
    look.fails("address outside", look.c.connect_container_to_network, other, first, ipv4_address="10.99.0.1")
    look.fails("bad address", look.c.connect_container_to_network, other, first, ipv4_address="bogus")
    look.fails("no network", look.c.connect_container_to_network, made, "nosuch")
    look.fails("no container", look.c.connect_container_to_network, "nosuch", first)
    look.fails("leave none", look.c.disconnect_container_from_network, made, "nosuch")
    look.fails("leave twice", look.c.disconnect_container_from_network, other, first)
    look.fails("leave by force", look.c.disconnect_container_from_network, made, first, force=True)
    look.fails("host", look.c.connect_container_to_network, made, "host")
    hosted = look.made(start=True, host={"network_mode": "host"})
    look.fails("of host", look.c.connect_container_to_network, hosted, first)
    alone = look.made(start=True, host={"network_mode": "none"})
    look.fails("of none", look.c.connect_container_to_network, alone, first)
    idle = look.made()
    look.fails("idle", look.c.connect_container_to_network, idle, first, aliases=["idle"])
    look.see("idle: networks", sorted(look.c.inspect_container(idle)["NetworkSettings"]["Networks"]))
    look.c.start(idle)
    look.see("idle: aliases", endpoint(first, idle)["Aliases"])
    look.see(
        "found by alias",
        look.docker.containers.get(idle).exec_run(["sh", "-c", "ping -c 1 -W 2 idle >/dev/null && echo ok"]).output,
    )
    look.see("model", sorted(c.name for c in look.docker.networks.get(ident).containers))
    net = look.docker.networks.create(look.name("n"))
    look.later(net.remove)
    net.connect(other)
    net.reload()
    look.see("model members", [c.name for c in net.containers])
    net.disconnect(other)
    net.reload()
    look.see("model nobody", net.containers)
    fixed = look.made(
        networking_config=look.c.create_networking_config(
            {
                first: look.c.create_endpoint_config(
                    ipv4_address="10.76.0.88",
                    aliases=["fx"],
                    links={"beside-other": "bo"},
                    link_local_ips=["169.254.9.9"],
                    mac_address="02:42:ac:11:00:88",
                )
            }
        ),
        host={"network_mode": first},
    )
    look.see("fixed: created", {k: v for k, v in endpoint(first, fixed).items() if k not in ("NetworkID", "DNSNames")})
    look.c.start(fixed)
    look.see("fixed: running", {k: v for k, v in endpoint(first, fixed).items() if k not in ("DNSNames",)})


def lists(look: Look) -> None:
    label = f"beside-{look.prefix}"
    one, two = look.name("one"), look.name("two")
    ident = look.network(name=one, labels={label: "1"})
    look.network(name=two, labels={label: "2"}, internal=True)
    look.see("by name", [n["Name"] for n in look.c.networks(names=[one])])
    look.see("by names", sorted(n["Name"] for n in look.c.networks(names=[one, two])))
    look.see("by id", [n["Name"] for n in look.c.networks(ids=[ident])])
    look.see("by short id", [n["Name"] for n in look.c.networks(ids=[ident[:8]])])
    look.see("by nothing there", look.c.networks(names=["nosuch"]))
    look.see("row", skeleton(look.c.networks(names=[one])[0]))
    for word, filters in {
        "label": {"label": label},
        "label value": {"label": f"{label}=2"},
        "driver": {"driver": "bridge", "label": label},
        "type": {"type": "custom", "label": label},
        "builtin": {"type": "builtin"},
        "scope": {"scope": "local", "label": label},
        "dangling": {"dangling": True, "label": label},
        "not dangling": {"dangling": False, "label": label},
        "part": {"name": f"{look.prefix}-one"},
    }.items():
        look.see(f"filter {word}", sorted(n["Name"] for n in look.c.networks(filters=filters)))
    for word, bad in {"unknown": {"bogus": "x"}, "type": {"type": "x"}, "dangling": {"dangling": "x"}}.items():
        look.fails(f"bad {word}", look.c.networks, filters=bad)
    look.see("models", [n.name for n in look.docker.networks.list(names=[one])])
    look.see("models greedy", [n.name for n in look.docker.networks.list(ids=[ident], greedy=True)])
    look.see("prune kept", look.c.prune_networks({"label": ["nosuch"]}))
    look.see("prune late", look.c.prune_networks({"label": [label], "until": "1h"}))
    look.see("pruned", sorted(look.c.prune_networks({"label": [label]})["NetworksDeleted"]))
    look.fails("prune unknown", look.c.prune_networks, {"bogus": "x"})


ALL = (created, connected, lists)
