"""What the daemon is, its events, plugins, swarm."""

from __future__ import annotations

import threading
import time
from typing import Any

from docker.types import Healthcheck

from tests.beside.look import Look, skeleton, tar


def told(look: Look) -> None:
    look.see("ping", look.c.ping())
    version = look.c.version()
    look.see("version", sorted(version))
    look.see("components", sorted(version["Components"][0]))
    look.see("component", [version["Components"][0]["Name"], sorted(version["Components"][0]["Details"])])
    look.see("system", [version["Os"], version["Arch"]])
    info = look.c.info()
    look.see("info", {k: type(v).__name__ for k, v in info.items()})
    look.see("registries", sorted(info["RegistryConfig"]))
    look.see("swarm", info["Swarm"])
    look.see("plugins of info", sorted(info["Plugins"]))
    look.see("network drivers", info["Plugins"]["Network"])
    look.see("runtimes", sorted(info["Runtimes"]))
    look.see("df", {k: type(v).__name__ for k, v in look.c.df().items()})
    look.see("df model", sorted(look.docker.df()))
    name = look.volume()
    made = look.made(start=True, host={"binds": [f"{name}:/v"]})
    df = look.c.df()
    look.see(
        "df container",
        skeleton(
            {
                k: v
                for k, v in next(c for c in df["Containers"] if c["Id"] == made).items()
                if k not in ("HostConfig", "NetworkSettings", "SizeRw", "Ports")
            }
        ),
    )
    look.see("df image", skeleton(df["Images"][0]) | {"RepoDigests": None, "Labels": None})
    look.see("df volume", skeleton(next(v for v in df["Volumes"] if v["Name"] == name)))
    look.see("plugins", look.c.plugins())
    look.fails("plugin", look.c.inspect_plugin, "nosuch")
    look.fails("enable plugin", look.c.enable_plugin, "nosuch")
    look.fails("disable plugin", look.c.disable_plugin, "nosuch")
    look.fails("remove plugin", look.c.remove_plugin, "nosuch")
    look.fails("configure plugin", look.c.configure_plugin, "nosuch", {"a": "b"})
    look.fails("push plugin", lambda: list(look.c.push_plugin("nosuch")))
    look.fails("pull plugin", lambda: list(look.c.pull_plugin("127.0.0.1:1/x", [])))
    look.fails("privileges", look.c.plugin_privileges, "127.0.0.1:1/x")
    look.fails("prune builds", look.c.prune_builds)


def without_a_swarm(look: Look) -> None:
    for verb in ("nodes", "services", "tasks", "secrets", "configs", "inspect_swarm", "get_unlock_key", "leave_swarm"):
        look.fails(verb, getattr(look.c, verb))
    for verb in (
        "inspect_node",
        "inspect_service",
        "inspect_task",
        "inspect_secret",
        "inspect_config",
        "remove_node",
        "remove_service",
        "remove_secret",
        "remove_config",
    ):
        look.fails(verb, getattr(look.c, verb), "nosuch")
    look.fails("create secret", look.c.create_secret, "x", b"y")
    look.fails("create config", look.c.create_config, "x", b"y")
    look.fails("create service", look.c.create_service, {"ContainerSpec": {"Image": "busybox"}}, name="x")
    look.fails("update swarm", look.c.update_swarm, 1)
    look.fails("unlock", look.c.unlock_swarm, "SWMKEY-1-x")
    look.fails("join", look.c.join_swarm, ["127.0.0.1:1"], "SWMTKN-bogus")
    look.fails("service logs", look.c.service_logs, "nosuch")


def events(look: Look) -> None:
    begun = time.time()
    name = look.name("ev")
    label = f"beside-{look.prefix}"
    made = look.made(name=name, labels={label: "1"}, healthcheck=Healthcheck(test="true", interval=300_000_000))
    look.c.start(made)
    look.until("healthy", lambda: look.c.inspect_container(made)["State"]["Health"]["Status"] == "healthy")
    ident = look.c.exec_create(made, ["false"])["Id"]
    look.c.exec_start(ident)
    look.c.pause(made)
    look.c.unpause(made)
    look.c.top(made)
    look.c.get_archive(made, "/etc/passwd")[0].close()
    look.c.put_archive(made, "/tmp", tar({"x": b"y"}))
    for _ in look.c.export(made):
        pass
    look.c.update_container(made, cpu_shares=300)
    look.c.rename(made, f"{name}-renamed")
    look.c.restart(made, timeout=5)
    look.c.stop(made, timeout=5)
    image = look.c.commit(made, repository="beside/event", tag="one")["Id"]
    look.c.tag(image, "beside/event", "two")
    look.c.remove_image("beside/event:two")
    look.c.remove_image("beside/event:one")
    net = look.c.create_network(look.name("n"))["Id"]
    look.c.connect_container_to_network(made, net)
    look.c.start(made)
    look.c.disconnect_container_from_network(made, net)
    look.c.remove_network(net)
    volume = look.name("v")
    look.c.create_volume(volume)
    look.c.remove_volume(volume)
    look.c.remove_container(made, force=True)

    def heard(**filters: Any) -> list[Any]:
        # to the end of the second, or its events are left out
        return list(look.c.events(since=begun, until=time.time() + 1, filters=filters, decode=True))

    # when healthchecks run differs from run to run
    own = [
        e
        for e in heard(container=made)
        if e["Actor"]["Attributes"].get("execID", ident) == ident and not e["Action"].startswith("health_status")
    ]
    look.see("container", [e["Action"] for e in own if e["Type"] == "container"])
    look.see(
        "attributes",
        {
            e["Action"]: sorted(k for k in e["Actor"]["Attributes"] if k not in ("execID",))
            for e in own
            if e["Type"] == "container"
        },
    )
    look.see("event", skeleton({k: v for k, v in own[0].items() if k != "Actor"}))
    look.see("types", sorted({(e["Type"], e["Action"]) for e in heard() if e["Type"] in ("network", "volume", "image")}))
    look.see("network attributes", {e["Action"]: sorted(e["Actor"]["Attributes"]) for e in heard(type="network")})
    look.see("volume attributes", {e["Action"]: sorted(e["Actor"]["Attributes"]) for e in heard(type="volume")})
    look.see("image attributes", {e["Action"]: sorted(e["Actor"]["Attributes"]) for e in heard(type="image")})
    look.see("by event", [e["Action"] for e in heard(container=made, event="die")])
    look.see("by events", [e["Action"] for e in heard(container=made, event=["create", "destroy"])])
    look.see("by label", sorted({e["Action"] for e in heard(label=f"{label}=1")} & {"create", "start", "die", "destroy"}))
    look.see("by image", bool(heard(image="busybox")))
    look.see("by scope", bool(heard(scope="local")))
    look.see("by other scope", heard(scope="swarm"))
    look.see("by volume", [e["Action"] for e in heard(volume=volume)])
    look.see("by network", sorted({e["Action"] for e in heard(network=net)}))
    look.fails("bad filter", lambda: list(look.c.events(until=1, filters={"bogus": "x"})))
    look.fails("backwards", lambda: list(look.c.events(since=100, until=1)))
    seen: list[str] = []
    stream = look.c.events(filters={"label": f"{label}=live"}, decode=True)

    def listen() -> None:
        for event in stream:
            seen.append(event["Action"])
            if event["Action"] == "destroy":
                break

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    live = look.made(["true"], labels={label: "live"}, start=True)
    look.c.wait(live)
    look.c.remove_container(live)
    listener.join(10)
    stream.close()
    look.see("live", seen)


ALL = (told, without_a_swarm, events)
