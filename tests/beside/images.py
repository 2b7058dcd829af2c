"""Images: list, inspect, tag, commit, import, save, load, remove, prune, pull, push, search."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import tempfile
from typing import Any

from tests.beside.look import IMAGE, Look, skeleton, tar


def inspected(look: Look) -> None:
    found = look.c.inspect_image(IMAGE)
    look.see("image", skeleton(found))
    look.see("config", {k: v for k, v in found["Config"].items() if k not in ("Image",)})
    look.see("names", [found["RepoTags"], found["Os"], found["Architecture"], found["RootFS"]["Type"], found["Author"]])
    look.see("history", sorted(look.c.history(IMAGE)[0]))
    look.see("by short id", look.c.inspect_image(found["Id"][7:19])["Id"] == found["Id"])
    look.see("by long id", look.c.inspect_image(found["Id"][7:])["Id"] == found["Id"])
    look.fails("none", look.c.inspect_image, "nosuch")
    look.fails("history none", look.c.history, "nosuch")
    look.fails("empty", look.c.inspect_image, "")
    look.fails("bad name", look.c.inspect_image, "UPPER")
    image = look.docker.images.get(IMAGE)
    look.see("model", [image.tags, bool(image.short_id), image.labels])
    look.see("row", skeleton(look.c.images(IMAGE)[0]))
    look.see("quiet", skeleton(look.c.images(IMAGE, quiet=True)))


def committed(look: Look) -> None:
    name = "beside/committed"
    made = look.made(
        ["sh", "-c", "touch /tmp/new"],
        start=True,
        labels={"own": "1"},
        environment={"A": "1"},
        user="app",
        working_dir="/srv",
        ports=[80],
        volumes=["/data"],
    )
    look.c.wait(made)
    done = look.c.commit(made, repository=name, tag="one", message="a message", author="somebody")
    look.later(look.c.remove_image, f"{name}:one", force=True)
    look.see("answer", skeleton(done))
    found = look.c.inspect_image(f"{name}:one")
    look.see("said", [found["Comment"], found["Author"], found["Container"] == made, found["RepoTags"]])
    look.see("parent", found["Parent"] == look.c.inspect_image(IMAGE)["Id"])
    look.see("config", {k: v for k, v in found["Config"].items() if k not in ("Hostname",)})
    step = look.c.history(f"{name}:one")[0]
    look.see("step", {k: v for k, v in step.items() if k not in ("Id", "Created", "Size")})
    look.see("container config", found["ContainerConfig"]["Cmd"])
    changes = [
        'CMD ["echo", "hi"]',
        'ENV X=1 Y="2 3"',
        'LABEL l=m n="o p"',
        "EXPOSE 81/udp",
        "VOLUME /v1 /v2",
        "WORKDIR /w",
        "USER root",
        'ENTRYPOINT ["sh"]',
        "STOPSIGNAL SIGINT",
        "HEALTHCHECK --interval=5s --retries=2 CMD true",
        "ONBUILD RUN true",
    ]
    for label, change in {
        **{c.split()[0]: [c] for c in changes},
        "all": [c for c in changes if "STOP" not in c],
        "shell form": ["CMD echo hi there"],
        "comment": ["# nothing"],
        "lower": ["env q=r"],
        "text": 'CMD ["x"]\nENV a=b',
    }.items():
        try:
            ident = look.c.commit(made, repository=name, tag="two", changes=change)["Id"]
        except Exception as error:
            look.see(f"change {label} refused", getattr(getattr(error, "response", None), "status_code", str(error)))
            continue
        look.later(look.c.remove_image, ident, force=True)
        look.see(f"change {label}", {k: v for k, v in look.c.inspect_image(ident)["Config"].items() if k not in ("Hostname",)})
    for label, bad in {
        "unknown": ["BOGUS x"],
        "forbidden": ["RUN true"],
        "copy": ["COPY a b"],
        "empty": ["ENV"],
        "port": ["EXPOSE x"],
    }.items():
        look.fails(f"bad {label}", look.c.commit, made, changes=bad)
    ident = look.c.commit(made, conf={"Cmd": ["y"], "Labels": {"c": "d"}, "Env": ["Z=1"]})["Id"]
    look.later(look.c.remove_image, ident, force=True)
    look.see("conf", {k: v for k, v in look.c.inspect_image(ident)["Config"].items() if k not in ("Hostname",)})
    look.see("no name", look.c.inspect_image(ident)["RepoTags"])
    look.fails("of none", look.c.commit, "nosuch")
    look.fails("bad name", look.c.commit, made, repository="UPPER")
    running = look.made(start=True)
    image = look.docker.containers.get(running).commit(repository=name, tag="three", pause=False)
    look.later(look.c.remove_image, f"{name}:three", force=True)
    look.see("model", image.tags)
    look.see("still", look.c.inspect_container(running)["State"]["Status"])


def imported(look: Look) -> None:
    name, data = "beside/imported", tar({"hello": b"x", "d/": b""})
    answer = look.c.import_image_from_data(data, repository=name, tag="one")
    look.later(look.c.remove_image, f"{name}:one", force=True)
    look.see("answer", sorted(json.loads(answer.splitlines()[-1])))
    found = look.c.inspect_image(f"{name}:one")
    look.see("said", [found["Comment"][:13], found["RepoTags"], found["Os"], found["Architecture"]])
    look.see("config", found["Config"])
    look.see("step", {k: v for k, v in look.c.history(f"{name}:one")[0].items() if k in ("CreatedBy", "Comment", "Tags")})
    for label, change in {
        "cmd": ['CMD ["a"]'],
        "env": ["ENV a=b"],
        "label": ["LABEL c=d"],
        "all": ["USER app", "EXPOSE 80", "WORKDIR /x"],
        "text": "USER app",
    }.items():
        try:
            look.c.import_image_from_data(data, repository=name, tag=label, changes=change)
        except Exception as error:
            look.see(f"change {label} refused", getattr(getattr(error, "response", None), "status_code", str(error)))
            continue
        look.later(look.c.remove_image, f"{name}:{label}", force=True)
        config = look.c.inspect_image(f"{name}:{label}")["Config"]
        look.see(f"change {label}", {k: config.get(k) for k in ("Cmd", "Env", "Labels", "User", "ExposedPorts", "WorkingDir")})
    look.fails("bad change", look.c.import_image_from_data, data, repository=name, changes=["RUN x"])
    look.see("nothing at all", b"error" in look.c.import_image_from_data(b"", repository=name, tag="empty").encode())
    look.later(look.c.remove_image, f"{name}:empty", force=True)
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        file.write(data)
        file.flush()
        answer = look.c.import_image(src=file.name, repository=name, tag="file")
        look.later(look.c.remove_image, f"{name}:file", force=True)
        look.see("file", sorted(json.loads(answer.splitlines()[-1])))
        look.fails("stream", look.c.import_image_from_stream, open(file.name, "rb"), repository=name, tag="stream")  # noqa: SIM115
        look.later(look.c.remove_image, f"{name}:stream", force=True)
    unnamed = json.loads(look.c.import_image_from_data(data, repository="", tag="").splitlines()[-1])["status"]
    look.later(look.c.remove_image, unnamed, force=True)
    look.see("unnamed", look.c.inspect_image(unnamed)["RepoTags"])
    look.fails("bad url", look.c.import_image_from_url, "http://127.0.0.1:1/x.tar", repository=name)
    look.fails("from image", look.c.import_image_from_image, "nosuch-image", repository=name)


def _own(look: Look, tag: str, **config: Any) -> str:
    """A small image of the test's own."""
    name = f"beside/own:{tag}"
    changes = [f"LABEL beside={tag}", *config.pop("changes", ())]
    look.c.import_image_from_data(tar({tag: tag.encode()}), repository="beside/own", tag=tag, changes=changes)
    look.later(look.c.remove_image, name, force=True)
    return name


def tagged_and_removed(look: Look) -> None:
    name = _own(look, "tags")
    look.fails("tag", look.c.tag, name, "beside/other", "x")
    look.later(look.c.remove_image, "beside/other:x", force=True)
    look.fails("tag without tag", look.c.tag, name, "beside/other")
    look.later(look.c.remove_image, "beside/other:latest", force=True)
    look.fails("tag with port", look.c.tag, name, "localhost:5000/beside/other", "y")
    look.later(look.c.remove_image, "localhost:5000/beside/other:y", force=True)
    look.fails("tag again by force", look.c.tag, name, "beside/other", "x", force=True)
    look.see("tags", sorted(look.c.inspect_image(name)["RepoTags"]))
    look.fails("tag none", look.c.tag, "nosuch", "a/b")
    look.fails("tag bad", look.c.tag, name, "a/UPPER")
    look.fails("tag bad tag", look.c.tag, name, "a/b", "bad:tag")
    look.fails("tag empty", look.c.tag, name, "")
    ident = look.c.inspect_image(name)["Id"]
    look.see("untagged", look.c.remove_image("localhost:5000/beside/other:y"))
    look.fails("by id with several", look.c.remove_image, ident)
    user = look.made(["x"], image="beside/other:x")
    look.fails("in use, one name", look.c.remove_image, "beside/other:latest")
    look.fails("in use", look.c.remove_image, ident)
    look.c.remove_image("beside/other:x")
    look.fails("in use, last name", look.c.remove_image, name)
    look.c.remove_container(user)
    look.see("gone", sorted({str(sorted(r)) for r in look.c.remove_image(name)}))
    look.fails("again", look.c.remove_image, name)
    look.fails("none by force", look.c.remove_image, "nosuch", force=True)
    other = _own(look, "noprune")
    look.see("no prune", sorted({str(sorted(r)) for r in look.c.remove_image(other, noprune=True)}))
    model = look.docker.images.get(_own(look, "model"))
    look.see("model tag", model.tag("beside/model", "z"))
    look.later(look.c.remove_image, "beside/model:z", force=True)
    model.reload()
    look.see("model tags", sorted(model.tags))


def saved_and_loaded(look: Look) -> None:
    name = _own(look, "saved", changes=['CMD ["a"]'])
    look.c.tag(name, "beside/own", "second")
    look.later(look.c.remove_image, "beside/own:second", force=True)
    ident = look.c.inspect_image(name)["Id"]

    def archived(data: bytes) -> Any:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return [r["RepoTags"] for r in json.load(archive.extractfile("manifest.json"))]

    by_name = b"".join(look.c.get_image(name))
    look.see("by name", archived(by_name))
    by_id = b"".join(look.c.get_image(ident))
    look.see("by id", archived(by_id))
    look.see("by short id", archived(b"".join(look.c.get_image(ident[7:19]))))
    model = look.docker.images.get(name)
    look.see("model", archived(b"".join(model.save())))
    look.see("model named", archived(b"".join(model.save(named=True)))[0] is not None)
    look.see("model named so", archived(b"".join(model.save(named="beside/own:second"))))
    look.fails("save none", look.c.get_image, "nosuch")
    look.c.remove_image(name)
    look.c.remove_image("beside/own:second")
    look.see("load", list(look.c.load_image(by_name)))
    look.see("loaded", [look.c.inspect_image(name)["Id"] == ident, look.c.inspect_image(name)["RepoTags"]])
    look.see("load quiet", list(look.c.load_image(by_name, quiet=True)))
    look.see("models", [i.tags for i in look.docker.images.load(by_name)])
    look.c.remove_image(name)
    look.see("load by id", list(look.c.load_image(by_id)))
    look.see("loaded by id", [look.c.inspect_image(ident)["RepoTags"]])
    look.see("models by id", [i.tags for i in look.docker.images.load(by_id)])
    look.c.remove_image(ident, force=True)
    look.fails("bad archive", look.docker.images.load, b"abc" * 1000)
    look.fails("bad archive raw", lambda: list(look.c.load_image(b"abc" * 1000)))


def lists(look: Look) -> None:
    first, second = _own(look, "first"), _own(look, "second")
    ident = look.c.inspect_image(first)["Id"]
    look.c.tag(first, "localhost/beside/deep", "v1.2")
    look.later(look.c.remove_image, "localhost/beside/deep:v1.2", force=True)

    def names(*words: Any, **how: Any) -> list[str]:
        return sorted(t for r in look.c.images(*words, **how) for t in r["RepoTags"] or () if "beside" in t)

    look.see("by name", names("beside/own"))
    look.see("by full name", names("beside/own:first"))
    look.see("by pattern", names("beside/*"))
    look.see("none", names("nosuch"))
    look.see("all", names(all=True))
    for label, filters in {
        "reference": {"reference": "beside/own"},
        "reference tag": {"reference": "*/own:f*"},
        "reference deep": {"reference": "localhost/*/*"},
        "references": {"reference": ["beside/own:first", "localhost/beside/deep"]},
        "label": {"label": "beside"},
        "label value": {"label": "beside=first"},
        "labels": {"label": ["beside", "beside=second"]},
        "before": {"before": second},
        "since": {"since": first},
        "dangling": {"dangling": True},
        "not dangling": {"dangling": False},
        "both": {"label": "beside=first", "reference": "beside/own"},
    }.items():
        look.see(f"filter {label}", names(filters=filters))
    for label, bad in {
        "unknown": {"bogus": "x"},
        "dangling": {"dangling": "x"},
        "before": {"before": "nosuch"},
        "reference": {"reference": "["},
    }.items():
        look.fails(f"bad {label}", look.c.images, filters=bad)
    look.see("models", sorted(t for i in look.docker.images.list("beside/own") for t in i.tags))
    look.c.remove_image("localhost/beside/deep:v1.2")
    look.c.import_image_from_data(tar({"newer": b"x"}), repository="beside/own", tag="first", changes=["LABEL beside=third"])
    look.later(look.c.remove_image, ident, force=True)
    look.see("dangling", [r["Id"] == ident for r in look.c.images(filters={"dangling": True, "label": "beside=first"})])
    look.see("dangling names", look.c.images(filters={"dangling": True, "label": "beside=first"})[0]["RepoTags"])
    look.see("prune kept", look.c.prune_images({"dangling": True, "label": ["nosuch"]})["ImagesDeleted"])
    done = look.c.prune_images({"dangling": True, "label": ["beside=first"]})
    look.see(
        "pruned",
        [len(done["ImagesDeleted"]) > 0, any("Deleted" in r for r in done["ImagesDeleted"]), done["SpaceReclaimed"] >= 0],
    )
    done = look.c.prune_images({"dangling": False, "label": ["beside=second"]})
    look.see("pruned all", sorted({k for r in done["ImagesDeleted"] for k in r}))
    look.fails("prune unknown", look.c.prune_images, {"bogus": "x"})
    look.fails("prune time", look.c.prune_images, {"until": "x"})


def registries(look: Look) -> None:
    """None can be reached."""
    look.fails("pull", look.c.pull, "127.0.0.1:1/x", "y")
    look.fails("pull bad", look.c.pull, "a/UPPER", "y")
    look.fails("pull stream", lambda: list(look.c.pull("127.0.0.1:1/x", "y", stream=True, decode=True)))
    look.fails("pull model", look.docker.images.pull, "127.0.0.1:1/x", tag="y")
    look.fails("pull platform", look.c.pull, "127.0.0.1:1/x", "y", platform="bogus/x")
    look.fails("push none", look.c.push, "127.0.0.1:1/nosuch", "y")
    name = _own(look, "pushed")
    look.c.tag(name, "127.0.0.1:1/x", "y")
    look.later(look.c.remove_image, "127.0.0.1:1/x:y", force=True)
    pushed = [json.loads(line) for line in look.c.push("127.0.0.1:1/x", "y").splitlines()]
    look.see("push", ["error" in pushed[-1], sorted(pushed[-1])])
    look.fails("search", look.c.search, "busybox")
    look.fails("search limit", look.c.search, "busybox", limit=1000)
    look.fails("search nothing", look.c.search, "")
    look.fails("distribution", look.c.inspect_distribution, "127.0.0.1:1/x:y")
    look.fails("login", look.c.login, "name", "password", registry="127.0.0.1:1")
    look.fails("registry data", look.docker.images.get_registry_data, "127.0.0.1:1/x:y")
    with contextlib.suppress(Exception):
        look.c.remove_image("127.0.0.1:1/x:y")


ALL = (inspected, committed, imported, tagged_and_removed, saved_and_loaded, lists, registries)
