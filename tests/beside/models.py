"""docker-py's objects and helpers as its reference has them: what they return, and of which class the errors are."""

from __future__ import annotations

import datetime
import io
import time
from collections.abc import Callable
from typing import Any

from docker.errors import DockerException
from docker.types import EndpointConfig, Healthcheck, Mount

from tests.beside.look import IMAGE, SLEEP, Look, members, plain, skeleton, tar


def class_of_error(look: Look, label: str, call: Callable[..., Any], *words: Any, **named: Any) -> None:
    """The class of the error, and its status."""
    try:
        look.see(label, skeleton(plain(call(*words, **named))))
    except (DockerException, RuntimeError, ValueError, TypeError) as error:
        look.see(label, [type(error).__name__, getattr(getattr(error, "response", None), "status_code", None)])
        look.words[label] = plain(str(getattr(error, "explanation", error)))


def errors_by_class(look: Look) -> None:
    d = look.docker
    for kind in ("containers", "images", "networks", "volumes", "plugins", "services", "nodes", "secrets", "configs"):
        class_of_error(look, f"{kind}.get", getattr(d, kind).get, "nosuch")
    class_of_error(look, "run: no image", d.containers.run, "nosuch/nosuch:x", "true")
    class_of_error(look, "create: no image", d.containers.create, "nosuch/nosuch:x", "true")
    class_of_error(look, "create: low level", look.c.create_container, "nosuch/nosuch:x", "true")
    class_of_error(look, "run: fails", d.containers.run, IMAGE, ["sh", "-c", "echo out; echo err >&2; exit 9"], remove=True)
    class_of_error(look, "run: no program", d.containers.run, IMAGE, "nosuch", remove=True)
    class_of_error(look, "run: no network", d.containers.run, IMAGE, "true", network="nosuch", remove=True)
    class_of_error(look, "run: both networks", d.containers.run, IMAGE, "true", network="x", network_mode="host")
    class_of_error(look, "run: other platform", d.containers.run, IMAGE, "true", platform="linux/s390x", remove=True)
    class_of_error(look, "remove image", d.images.remove, "nosuch")
    class_of_error(look, "tag", look.c.tag, "nosuch", "x")
    class_of_error(look, "history", look.c.history, "nosuch")
    class_of_error(look, "save", lambda: b"".join(look.c.get_image("nosuch")))
    class_of_error(look, "push", look.c.push, "nosuch")
    class_of_error(look, "remove volume", look.c.remove_volume, "nosuch")
    class_of_error(look, "remove network", look.c.remove_network, "nosuch")
    class_of_error(look, "disconnect", look.c.disconnect_container_from_network, "nosuch", "bridge")
    class_of_error(look, "swarm", d.swarm.reload)
    class_of_error(look, "swarm leave", d.swarm.leave)
    class_of_error(look, "unlock key", d.swarm.get_unlock_key)
    made = look.made(start=True)
    container = d.containers.get(made)
    class_of_error(look, "remove running", container.remove)
    class_of_error(look, "rename taken", container.rename, d.containers.get(look.made()).name)
    class_of_error(look, "get archive", container.get_archive, "/nosuch")
    class_of_error(look, "put archive", container.put_archive, "/nosuch", b"")
    class_of_error(look, "update", container.update, mem_limit="1m")
    class_of_error(look, "exec", container.exec_run, ["nosuch"])
    class_of_error(look, "exec folder", container.exec_run, ["true"], workdir="/nosuch")
    class_of_error(look, "exec user", container.exec_run, ["true"], user="nosuch")
    class_of_error(look, "remove link", look.c.remove_container, "nosuch", link=True)
    class_of_error(look, "wait in time", look.docker.containers.get(look.made(["true"], start=True)).wait, timeout=20)


def a_container_as_an_object(look: Look) -> None:
    net = look.name("n")
    look.network(name=net)
    volume = look.volume()
    made = look.docker.containers.run(
        IMAGE,
        SLEEP,
        detach=True,
        name=look.name(),
        auto_remove=False,
        environment={"A": "1"},
        labels=["own"],
        network=net,
        networking_config={net: EndpointConfig("1.41", aliases=["also"])},
        ports={"80/tcp": None, "81/udp": 18181, "83": ("127.0.0.1", 18183), 84: [18184, 18185]},
        volumes=[f"{volume}:/v:ro", "/usr/share:/u"],
        mounts=[Mount("/m", "", type="tmpfs")],
        healthcheck=Healthcheck(test=["CMD", "true"], interval=10**9, start_period=10**9),
        init=True,
        stdin_open=True,
        tty=True,
        user="0:0",
        read_only=False,
        stop_signal="SIGTERM",
    )
    look.later(made.remove, force=True, v=True)
    look.see("before reload", [made.status, made.name, made.labels, bool(made.short_id), made.image.tags, made.health])
    made.reload()
    look.see("after reload", [made.status, made.health in ("starting", "healthy")])
    look.see("ports", {k: sorted({b["HostIp"] for b in v}) for k, v in made.ports.items()})
    fixed = {k: sorted({b["HostPort"] for b in v}) for k, v in made.ports.items() if k != "80/tcp"}
    look.see("fixed ports", fixed)
    look.see("bindings", made.attrs["HostConfig"]["PortBindings"])
    look.see("exposed", made.attrs["Config"]["ExposedPorts"])
    look.see("size", made.resize(30, 90))
    look.see("same", made == look.docker.containers.get(made.id))
    while not any(row[-1] == "sleep 1000" for row in made.top()["Processes"]):  # the shell has its trap before it has a child
        time.sleep(0.05)
    look.see("stop", made.stop(timeout=5))
    look.see("wait", made.wait())
    look.see("wait by condition", made.wait(condition="not-running", timeout=10))
    made.reload()
    look.see("stopped", [made.status, made.ports, made.attrs["State"]["ExitCode"]])
    look.see("start", made.start())
    look.see("restart", made.restart(timeout=1))
    look.see("kill", made.kill("SIGKILL"))
    look.see("killed", made.wait()["StatusCode"])
    look.see("remove", made.remove(v=True))


def logs_of_a_time(look: Look) -> None:
    made = look.made(["sh", "-c", "echo one; sleep 2; echo two; sleep 2; echo three"], start=True)
    container = look.docker.containers.get(made)
    container.wait()
    stamps = [line.partition(b" ")[0].decode() for line in container.logs(timestamps=True).splitlines()]
    second = datetime.datetime.fromisoformat(stamps[1][:26] + "+00:00")
    at = second.timestamp()
    early, late = second - datetime.timedelta(seconds=1), second + datetime.timedelta(seconds=1)
    for label, how in {
        "since a number": {"since": int(at)},
        "since a float": {"since": at - 0.5},
        "since a date": {"since": early.replace(tzinfo=None)},
        "until a number": {"until": int(at) + 1},
        "until a float": {"until": at + 0.5},
        "until a date": {"until": late.replace(tzinfo=None)},
        "between": {"since": at - 1.0, "until": at + 1.0},
        "since and tail": {"since": at - 1.0, "tail": 1},
        "follow until": {"until": at + 1.0, "follow": True},
    }.items():
        look.see(label, container.logs(**how))
    look.fails("since a word", container.logs, since="yesterday")
    live = look.made(["sh", "-c", "for i in 1 2 3 4; do echo $i; sleep 0.5; done"], start=True)
    look.see("stream of a running one", b"".join(look.docker.containers.get(live).logs(stream=True)))
    quiet = look.made(["sh", "-c", "printf 'no end'; printf 'of a line' >&2"], start=True)
    look.c.wait(quiet)
    look.see("without ends of lines", sorted(look.c.logs(quiet, stream=True)))
    long = look.made(["sh", "-c", "head -c 40000 /dev/zero | tr '\\0' x; echo; echo end"], start=True)
    look.c.wait(long)
    look.see("long line", [len(line) for line in look.c.logs(long).split(b"\n")])


def terminals_and_detaching(look: Look) -> None:
    def until_quiet(sock: Any, wanted: bytes) -> bool:
        seen, deadline = b"", time.monotonic() + 15
        while wanted not in seen and time.monotonic() < deadline:
            data = sock._sock.recv(4096)
            if not data:
                break
            seen += data
        return wanted in seen

    def ends(sock: Any) -> bool:
        sock._sock.settimeout(15)
        while sock._sock.recv(4096):
            pass
        return True

    for label, keys, typed in (("default", None, b"\x10\x11"), ("own", "ctrl-a,x", b"\x01x")):
        made = look.made("sh", tty=True, stdin_open=True, start=True)
        params = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1, **({"detachKeys": keys} if keys else {})}
        sock = look.c.attach_socket(made, params)
        sock._sock.sendall(b"echo $((20 + 3))\n")
        look.see(f"{label}: talks", until_quiet(sock, b"23"))
        sock._sock.sendall(typed)
        look.see(f"{label}: leaves", ends(sock))
        look.see(f"{label}: runs", look.c.inspect_container(made)["State"]["Running"])
        ident = look.c.exec_create(made, "sh", stdin=True, tty=True, detach_keys=keys)["Id"]
        sock = look.c.exec_start(ident, tty=True, socket=True)
        sock._sock.sendall(b"echo $((30 + 4))\n")
        look.see(f"{label}: exec talks", until_quiet(sock, b"34"))
        sock._sock.sendall(typed)
        look.see(f"{label}: exec leaves", ends(sock))
        look.see(f"{label}: exec runs", look.c.exec_inspect(ident)["Running"])
    plain_one = look.made(["cat"], stdin_open=True, start=True)
    sock = look.c.attach_socket(plain_one, {"stdin": 1, "stdout": 1, "stream": 1})
    sock._sock.sendall(b"\x10\x11typed\n")
    look.see("no terminal", until_quiet(sock, b"typed"))
    sock.close()
    ended = look.made(["true"], start=True)
    look.c.wait(ended)
    look.see("attach to what ended", look.c.attach(ended, stream=False, logs=True))
    once = look.docker.containers.create(IMAGE, ["cat"], stdin_open=True, name=look.name())
    look.later(once.remove, force=True)
    sock = once.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    once.start()
    sock._sock.sendall(b"in\n")
    look.see("cat says", until_quiet(sock, b"in\n"))
    sock.close()


def files_in_pieces(look: Look) -> None:
    made = look.made(["sh", "-c", "head -c 3000000 /dev/zero > /big; ln -s big /link; touch /ready; sleep 1000"], start=True)

    def ready() -> bool:
        return any(r["Path"] == "/ready" for r in look.c.diff(made) or ())

    look.until("ready", ready)
    container = look.docker.containers.get(made)
    for label, how in {"whole": {}, "small pieces": {"chunk_size": 1000}, "encoded": {"encode_stream": True}}.items():
        pieces, about = container.get_archive("/big", **how)
        look.see(label, [members(b"".join(pieces))[0][:6], sorted(about), about["size"]])
    look.see("link", container.get_archive("/link")[1]["linkTarget"])
    data = tar({"x": b"y"})
    look.see("put bytes", container.put_archive("/tmp", data))
    look.see("put a file", container.put_archive("/tmp", io.BytesIO(data)))
    look.see("export in pieces", len(b"".join(container.export(chunk_size=4096))) > 3_000_000)
    response = look.c._get(look.c._url("/containers/{0}/archive", made), params={"path": "/tmp/x"}, stream=True)
    look.see("type of an archive", [response.headers.get("Content-Type"), response.headers.get("Content-Encoding")])
    response.close()


def linked(look: Look) -> None:
    first = look.made(start=True, name=look.name("db"), ports=[80], environment={"OWN": "1"})
    name = look.c.inspect_container(first)["Name"][1:]
    second = look.made(start=True, host={"links": {name: "alias"}})
    look.see(
        "links",
        [plain(x).partition(":")[2].rpartition("/")[2] for x in look.c.inspect_container(second)["HostConfig"]["Links"]],
    )
    env = look.docker.containers.get(second).exec_run(["env"]).output.decode().splitlines()
    look.see("variables", sorted(plain(line) for line in env if line.startswith("ALIAS")))
    look.see("reached", look.docker.containers.get(second).exec_run(["ping", "-c", "1", "-q", "alias"]).exit_code)
    rows = look.c.containers(filters={"id": first})
    look.see("names", [len(rows[0]["Names"]), any(n.endswith("/alias") for n in rows[0]["Names"])])
    own = look.c.inspect_container(second)["Name"][1:]
    look.see("by link", look.c.inspect_container(f"{own}/alias")["Id"] == first)
    look.fails("remove link", look.c.remove_container, f"{own}/alias", link=True)
    look.see("still there", look.c.inspect_container(first)["State"]["Running"])
    look.see("after", (look.c.inspect_container(second)["HostConfig"]["Links"] or []) == [])


def restarted_by_policy(look: Look) -> None:
    always = look.made(["sh", "-c", "sleep 1000"], host={"restart_policy": {"Name": "always"}}, start=True)
    begun = look.c.inspect_container(always)["State"]["StartedAt"]
    pid = look.c.inspect_container(always)["State"]["Pid"]
    look.docker.containers.get(always).exec_run(["sh", "-c", "kill -9 1"])
    look.c.kill(always, "SIGKILL")
    look.see("killed stays", [look.c.inspect_container(always)["State"]["Status"], pid > 0, bool(begun)])
    crashing = look.made(["sh", "-c", "exit 1"], host={"restart_policy": {"Name": "always"}}, start=True)
    look.until("comes back", lambda: look.c.inspect_container(crashing)["RestartCount"] > 0)
    look.c.stop(crashing)
    look.see("stopped stays", look.c.inspect_container(crashing)["State"]["Status"])
    look.see("no policy any more", look.c.update_container(crashing, restart_policy={"Name": "no"}))
    look.see("policy", look.c.inspect_container(crashing)["HostConfig"]["RestartPolicy"])


def the_daemon_as_an_object(look: Look) -> None:
    d = look.docker
    look.see("ping", d.ping())
    look.see("version", sorted(d.version()))
    look.see("version without", sorted(look.c.version(api_version=False)))
    look.see(
        "info",
        [d.info()[k] for k in ("OSType", "Driver", "LoggingDriver", "IndexServerAddress", "InitBinary", "DefaultRuntime")],
    )
    look.see("df", sorted(d.df()))
    class_of_error(look, "search", d.images.search, "")
    begun = time.time()
    made = d.containers.run(IMAGE, "true", detach=True, name=look.name())
    made.wait()
    made.remove()
    seen = [
        e["Action"]
        for e in d.events(
            since=datetime.datetime.fromtimestamp(begun, datetime.UTC).replace(tzinfo=None),
            until=time.time() + 1,
            decode=True,
            filters={"container": made.id},
        )
    ]
    look.see("events", seen)
    raw = next(iter(d.events(since=begun, until=time.time() + 1)))
    look.see("raw events", type(raw).__name__)


ALL = (
    errors_by_class,
    a_container_as_an_object,
    logs_of_a_time,
    terminals_and_detaching,
    files_in_pieces,
    linked,
    restarted_by_policy,
    the_daemon_as_an_object,
)
