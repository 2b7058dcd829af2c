"""Volumes: create, lists, use, prune."""

from __future__ import annotations

from tests.beside.look import Look, plain, skeleton


def made(look: Look) -> None:
    name = look.volume()
    look.see("whole", look.c.inspect_volume(name))
    look.see("answer", look.c.create_volume(name))
    for label, wish in {
        "labels": {"labels": {"a": "b"}},
        "driver": {"driver": "local"},
        "options": {"driver": "local", "driver_opts": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}},
    }.items():
        made = look.volume(**wish)
        found = look.c.inspect_volume(made)
        look.see(label, {k: v for k, v in found.items() if k != "Mountpoint"})
    anonymous = look.c.create_volume()
    look.later(look.c.remove_volume, anonymous["Name"], force=True)
    look.see("anonymous", {k: v for k, v in anonymous.items() if k != "Mountpoint"})
    look.fails("bad driver", look.c.create_volume, look.name("v"), driver="bogus")
    look.fails("bad name", look.c.create_volume, "a/b")
    look.fails("short name", look.c.create_volume, "a")
    look.fails("bad option", look.c.create_volume, look.name("v"), driver_opts={"bogus": "x"})
    look.fails("option without device", look.c.create_volume, look.name("v"), driver_opts={"type": "tmpfs"})
    look.fails("other labels", look.c.create_volume, name, labels={"x": "y"})
    look.fails("other options", look.c.create_volume, name, driver_opts={"type": "tmpfs", "device": "tmpfs"})
    look.fails("inspect none", look.c.inspect_volume, "nosuch")
    look.fails("remove none", look.c.remove_volume, "nosuch")
    look.fails("remove none by force", look.c.remove_volume, "nosuch", force=True)
    user = look.made(start=True, host={"binds": [f"{name}:/v"]})
    look.fails("remove in use", look.c.remove_volume, name)
    look.fails("remove in use by force", look.c.remove_volume, name, force=True)
    look.c.remove_container(user, force=True)
    look.fails("remove", look.c.remove_volume, name)
    model = look.docker.volumes.create(look.name("v"), labels={"c": "d"})
    look.later(model.remove, force=True)
    look.see("model", [model.attrs["Labels"], model.short_id == model.id])
    tmpfs = look.volume(driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1000"})
    look.see(
        "mounted",
        look.docker.containers.run(
            "busybox",
            ["sh", "-c", "grep ' /v ' /proc/mounts | cut -d' ' -f3; stat -c %u /v"],
            volumes={tmpfs: {"bind": "/v"}},
            remove=True,
        ),
    )


def used(look: Look) -> None:
    name = look.volume()
    look.docker.containers.run("busybox", ["sh", "-c", "echo x > /v/x"], volumes={name: {"bind": "/v"}}, remove=True)
    look.see("kept", look.docker.containers.run("busybox", ["cat", "/v/x"], volumes=[f"{name}:/v:ro"], remove=True))
    look.fails(
        "read only",
        look.docker.containers.run,
        "busybox",
        ["sh", "-c", "echo y > /v/x"],
        volumes={name: {"bind": "/v", "mode": "ro"}},
        remove=True,
    )
    filled = look.volume()
    look.see("filled", look.docker.containers.run("busybox", ["ls", "/srv"], volumes={filled: {"bind": "/srv"}}, remove=True))
    empty = look.volume()
    look.see("not filled", look.docker.containers.run("busybox", ["ls", "/srv"], volumes=[f"{empty}:/srv:nocopy"], remove=True))
    holder = look.made(volumes=["/data"], start=True)
    (mount,) = look.c.inspect_container(holder)["Mounts"]
    look.see("anonymous", {k: v for k, v in mount.items() if k != "Source"})
    look.see("from", look.docker.containers.run("busybox", ["sh", "-c", "ls -d /data"], volumes_from=[holder], remove=True))
    look.see(
        "from ro",
        look.docker.containers.run(
            "busybox", ["sh", "-c", "touch /data/x 2>/dev/null || echo ro"], volumes_from=[f"{holder}:ro"], remove=True
        ),
    )
    reader = look.made(host={"volumes_from": [holder]})
    look.see(
        "from: mounts", [{k: v for k, v in m.items() if k != "Source"} for m in look.c.inspect_container(reader)["Mounts"]]
    )
    look.c.remove_container(reader)
    look.c.remove_container(holder, v=True, force=True)
    look.fails("gone with it", look.c.inspect_volume, mount["Name"])
    kept = look.made(volumes=["/data"], start=True)
    (mount,) = look.c.inspect_container(kept)["Mounts"]
    look.c.remove_container(kept, force=True)
    look.fails("stays", look.c.inspect_volume, mount["Name"])
    look.later(look.c.remove_volume, mount["Name"])
    wide = look.made(host={"binds": [f"{name}:/v", "/usr/share:/b", "/usr/lib:/u:ro"]})
    look.see(
        "mounts",
        sorted(
            (plain({k: v for k, v in m.items() if k not in ("Source",)}) for m in look.c.inspect_container(wide)["Mounts"]),
            key=str,
        ),
    )


def lists(look: Look) -> None:
    label = f"beside-{look.prefix}"
    one, two = look.name("one"), look.name("two")
    look.volume(name=one, labels={label: "1"})
    look.volume(name=two, labels={label: "2"})
    look.made(host={"binds": [f"{two}:/v"]})

    def names(**filters: object) -> list[str]:
        return sorted(v["Name"] for v in look.c.volumes(filters=filters)["Volumes"] or ())

    look.see("keys", sorted(look.c.volumes()))
    look.see("label", names(label=label))
    look.see("label value", names(label=f"{label}=2"))
    look.see("name", names(name=f"{look.prefix}-one"))
    look.see("dangling", names(dangling=True, label=label))
    look.see("in use", names(dangling=False, label=label))
    look.see("driver", names(driver="local", label=label))
    look.see("other driver", names(driver="bogus", label=label))
    look.see("row", skeleton(look.c.volumes(filters={"name": one})["Volumes"][0]))
    for word, bad in {"unknown": {"bogus": "x"}, "dangling": {"dangling": "x"}}.items():
        look.fails(f"bad {word}", look.c.volumes, filters=bad)
    look.see("models", [v.name for v in look.docker.volumes.list(filters={"name": one})])
    look.see("prune kept", look.c.prune_volumes({"label": ["nosuch"]})["VolumesDeleted"])
    look.fails("prune unknown", look.c.prune_volumes, {"bogus": "x"})
    done = look.c.prune_volumes({"label": [label]})
    look.see("pruned", [done["VolumesDeleted"], done["SpaceReclaimed"]])


ALL = (made, used, lists)
