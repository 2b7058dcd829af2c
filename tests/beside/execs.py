"""Commands in running containers: every parameter of exec."""

from __future__ import annotations

import time

from docker.errors import APIError

from tests.beside.look import Look, plain, skeleton


def executed(look: Look) -> None:
    made = look.made(start=True, environment={"OWN": "1"}, working_dir="/tmp", labels={"a": "b"})

    def run(label: str, cmd: object, start: dict[str, object] | None = None, **how: object) -> str:
        try:
            ident: str = look.c.exec_create(made, cmd, **how)["Id"]
            output = look.c.exec_start(ident, **(start or {}))
            if start and start.get("stream"):
                output = list(output)
            look.see(label, output)
        except APIError as error:
            look.see(f"{label}: refused", error.response.status_code)
            look.words[label] = plain(str(error.explanation))
            return ""
        except Exception as error:
            look.see(f"{label}: raises", type(error).__name__)
        look.see(f"{label}: code", look.c.exec_inspect(ident)["ExitCode"])
        return ident

    run("plain", ["echo", "hello"])
    run("line", "echo hello there")
    run("shell", ["sh", "-c", "echo o; sleep 0.1; echo e >&2; exit 3"])
    run("stream", ["sh", "-c", "echo 1; sleep 0.2; echo 2"], {"stream": True})
    run("demux", ["sh", "-c", "echo o; sleep 0.1; echo e >&2"], {"demux": True})
    run("demux stream", ["sh", "-c", "echo o; sleep 0.1; echo e >&2"], {"demux": True, "stream": True})
    run("no output", ["sh", "-c", "echo o; echo e >&2"], stdout=False, stderr=True)
    run("tty", ["sh", "-c", "test -t 1 && echo tty"], {"tty": True}, tty=True)
    run("user", ["id", "-un"], user="app")
    run("user ids", ["id"], user="1000:29")
    run("environment", ["sh", "-c", "echo $OWN $MORE"], environment={"MORE": "2"})
    run("environment list", ["sh", "-c", "echo $OWN $MORE"], environment=["MORE=2", "OWN=3"])
    run("folder", ["pwd"], workdir="/srv")
    run("own folder", ["pwd"])
    run("privileged", ["grep", "CapEff", "/proc/self/status"], privileged=True)
    run("capabilities", ["grep", "CapEff", "/proc/self/status"])
    gone = look.c.exec_create(made, ["true"])["Id"]
    look.see("detached", look.c.exec_start(gone, detach=True))
    look.until("detached: ended", lambda: look.c.exec_inspect(gone)["ExitCode"] == 0)
    run("no command", ["nosuchcommand"])
    run("no folder", ["pwd"], workdir="/nosuch")
    run("no user", ["id"], user="nosuch")
    run("folder as command", ["/etc"])
    run("killed", ["sh", "-c", "kill -9 $$"])
    look.fails("empty", look.c.exec_create, made, [])
    look.fails("of none", look.c.exec_create, "nosuch", "true")
    look.fails("inspect none", look.c.exec_inspect, "nosuch")
    look.fails("start none", look.c.exec_start, "nosuch")
    look.fails("resize none", look.c.exec_resize, "nosuch", 10, 10)
    look.fails("bad keys", look.c.exec_create, made, "true", detach_keys="bogus-keys-x")
    idle = look.made()
    look.fails("in idle", look.c.exec_create, idle, "true")
    once = look.c.exec_create(made, ["true"])["Id"]
    look.c.exec_start(once)
    look.fails("again", look.c.exec_start, once)
    look.fails("resize ended", look.c.exec_resize, once, 10, 10)
    sleeper = look.c.exec_create(made, ["sleep", "30"], stdin=True, tty=True, user="app", workdir="/tmp", environment=["A=b"])[
        "Id"
    ]
    found = look.c.exec_inspect(sleeper)
    look.see("before", {k: v for k, v in found.items() if k != "Pid"})
    sock = look.c.exec_start(sleeper, socket=True, tty=True)
    look.until("runs", lambda: look.c.exec_inspect(sleeper)["Running"])
    found = look.c.exec_inspect(sleeper)
    look.see("running", {k: v for k, v in found.items() if k != "Pid"})
    look.see("has pid", found["Pid"] > 1)
    look.fails("resize", look.c.exec_resize, sleeper, 33, 44)
    look.see("listed", look.c.inspect_container(made)["ExecIDs"] is not None)
    sock.close()
    echo = look.c.exec_create(made, ["cat"], stdin=True)["Id"]
    sock = look.c.exec_start(echo, socket=True)
    sock._sock.sendall(b"ping\n")
    time.sleep(0.3)
    look.see("frame", sock._sock.recv(100))
    sock.close()
    container = look.docker.containers.get(made)
    look.see("run", tuple(container.exec_run(["sh", "-c", "echo x; exit 2"])))
    look.see("run demux", tuple(container.exec_run(["sh", "-c", "echo x; sleep 0.1; echo y >&2"], demux=True)))
    look.see("run detach", skeleton(tuple(container.exec_run("true", detach=True))))
    look.see("run stream", list(container.exec_run(["sh", "-c", "echo 1; sleep 0.2; echo 2"], stream=True).output))
    look.fails("run no command", container.exec_run, "nosuchcommand")
    look.c.pause(made)
    look.fails("in paused", look.c.exec_create, made, "true")
    look.c.unpause(made)


ALL = (executed,)
