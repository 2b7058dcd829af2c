"""python-on-whales, which drives the `docker` command: what its documentation shows."""

from __future__ import annotations

import subprocess
import tempfile
import time
import urllib.request
import uuid
from datetime import datetime, timedelta
from pathlib import Path

from cases import case, run_all, until
from python_on_whales import DockerException, docker

SLEEP = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]


def name():
    return f"whale{uuid.uuid4().hex[:8]}"


@case
def life_cycle():
    assert docker.run("busybox", ["echo", "hello"], remove=True) == "hello"
    made = docker.run("busybox", SLEEP, detach=True, name=name(), labels={"whale": "1"}, hostname="whales")
    assert made.state.running
    assert made.config.hostname == "whales"
    assert made.exists()
    made.pause()
    assert made.state.paused
    made.unpause()
    made.restart(time=1)
    made.rename(other := name())
    assert docker.container.inspect(other).id == made.id
    assert [c.id for c in docker.ps(filters={"label": "whale=1"})] == [made.id]
    made.stop(time=5)
    assert made.state.exit_code == 0
    made.start()
    made.kill()
    assert docker.wait(made) == 137
    made.remove(volumes=True)
    assert not docker.container.exists(other)


@case
def failures():
    for words, code in ((["nosuchcommand"], 127), (["/etc"], 126), (["sh", "-c", "exit 9"], 9)):
        try:
            docker.run("busybox", words, remove=True)
        except DockerException as error:
            assert f"returned with code {code}\n" in str(error), error
        else:
            raise AssertionError(words)
    for call, said in (
        (lambda: docker.container.inspect("nosuch"), "no such container"),
        (lambda: docker.network.inspect("nosuch"), "network nosuch not found"),
        (lambda: docker.volume.inspect("nosuch"), "no such volume"),
        (lambda: docker.image.inspect("nosuch"), "no such image"),
        (lambda: docker.container.create("busybox", name="a b"), "invalid container name"),
        (lambda: docker.service.list(), "not a swarm manager"),
    ):
        try:
            call()
        except DockerException as error:
            assert said in str(error).lower(), error
        else:
            raise AssertionError(said)


@case
def executes():
    with docker.run("busybox", SLEEP, detach=True, name=name()) as made:
        assert made.execute(["echo", "x"]) == "x"
        made.execute(["sh", "-c", "test -t 1 && touch /tmp/terminal"], tty=True)
        assert made.execute(["ls", "/tmp"]) == "terminal"
        assert made.execute(["sh", "-c", "echo $A; id -un; pwd"], envs={"A": "b"}, user="app", workdir="/tmp") == "b\napp\n/tmp"
        assert [(kind, line) for kind, line in made.execute(["sh", "-c", "echo o"], stream=True)] == [("stdout", b"o\n")]
        made.execute(["touch", "/tmp/detached"], detach=True)
        until(lambda: "detached" in made.execute(["ls", "/tmp"]))


@case
def logs():
    with docker.run("busybox", ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.3; done; echo e >&2"], detach=True) as made:
        seen = list(docker.logs(made, follow=True, stream=True))
        assert [line for kind, line in seen if kind == "stdout"] == [b"1\n", b"2\n", b"3\n"], seen
        assert [line for kind, line in seen if kind == "stderr"] == [b"e\n"]
        assert docker.logs(made, tail=2).split() in (["3", "e"], ["e", "3"])
        assert docker.logs(made, timestamps=True).count("Z ") == 4
        assert docker.logs(made, since=datetime.now() + timedelta(hours=1)) == ""


@case
def copies():
    with docker.run("busybox", SLEEP, detach=True) as made, tempfile.TemporaryDirectory() as folder:
        Path(folder, "in").write_text("to and fro\n")
        docker.copy(f"{folder}/in", (made, "/tmp/there"))
        assert made.execute(["cat", "/tmp/there"]) == "to and fro"
        docker.copy((made, "/srv"), f"{folder}/srv")
        assert Path(folder, "srv", "hello").read_text() == "hello from the image\n"
        assert "/tmp/there" in docker.diff(made)
        made.export(f"{folder}/whole.tar")
        assert Path(folder, "whole.tar").stat().st_size > 100_000


@case
def ports_and_volumes():
    with (
        docker.volume.create(name(), labels={"whale": "v"}) as volume,
        docker.run(
            "busybox",
            ["httpd", "-f", "-p", "80", "-h", "/data"],
            detach=True,
            publish=[("127.0.0.1:0", 80)],
            volumes=[(volume, "/data", "rw")],
            tmpfs=["/t"],
            memory="64m",
            cpus=0.5,
            restart="on-failure:2",
            healthcheck=False,
        ) as made,
    ):
        made.execute(["sh", "-c", "echo served > /data/file"])
        (where,) = made.network_settings.ports["80/tcp"]
        url = f"http://127.0.0.1:{where['HostPort']}/file"
        assert until(lambda: urllib.request.urlopen(url, timeout=5).read()) == b"served\n"
        assert volume.name in [v.name for v in docker.volume.list(filters={"label": "whale=v"})]
        assert made.host_config.memory == 64 << 20
        docker.update(made, memory="96m", memory_swap="192m")
        made.reload()
        assert made.host_config.memory == 96 << 20
    assert not docker.volume.exists(volume.name)


@case
def networks():
    with (
        docker.network.create(name(), subnet="172.31.200.0/24", labels={"whale": "n"}) as network,
        docker.run("busybox", SLEEP, detach=True, networks=[network], network_aliases=["first"]) as one,
        docker.run("busybox", SLEEP, detach=True) as two,
    ):
        docker.network.connect(network, two, alias="second", ip="172.31.200.77")
        assert one.execute(["ping", "-c", "1", "second"]).count("172.31.200.77") >= 2
        network.reload()
        assert set(network.containers) == {one.id, two.id}
        docker.network.disconnect(network, two)
        assert [n.id for n in docker.network.list(filters={"label": "whale=n"})] == [network.id]


@case
def images():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "Dockerfile").write_text(
            "FROM busybox AS one\nARG A\nRUN echo built$A > /built\nFROM one\nCMD cat /built\n"
        )
        tag = f"whale/{name()}:1"
        built = docker.legacy_build(folder, tags=[tag], build_args={"A": "7"})
        assert tag in built.repo_tags
        assert docker.run(tag, remove=True) == "built7"
        docker.save(tag, output=f"{folder}/saved.tar")
        docker.tag(tag, tag.replace(":1", ":2"))
        docker.image.remove([tag, tag.replace(":1", ":2")])
        assert docker.load(f"{folder}/saved.tar") == [tag]
        assert [i.repo_tags for i in docker.image.list("whale/*")] == [[tag]]
        with docker.run("busybox", ["touch", "/committed"], detach=True) as made:
            docker.wait(made)
            committed = docker.commit(made, tag.replace(":1", ":c"), message="m", author="a")
        assert docker.run(committed, ["ls", "/committed"], remove=True) == "/committed"
        docker.image.remove([tag, committed], force=True)
        imported = docker.import_(f"{folder}/saved.tar", tag.replace(":1", ":i"))
        docker.image.remove(imported)


@case
def statistics():
    with docker.run("busybox", SLEEP, detach=True, memory="64m") as made:
        (row,) = [r for r in docker.stats(made) if r.container_id == made.id]
        assert row.container_id == made.id
        assert row.memory_limit == 64 << 20
        assert row.memory_used > 0
        assert row.cpu_percentage >= 0


@case
def events():
    begun = datetime.now() - timedelta(seconds=1)
    made = docker.run("busybox", ["true"], detach=True)
    docker.wait(made)
    made.remove()
    time.sleep(1)  # events are asked for by whole seconds
    heard = docker.system.events(since=begun, until=datetime.now(), filters={"container": made.id})
    assert [e.action for e in heard if e.type == "container"] == ["create", "start", "die", "destroy"]


@case
def system():
    info = docker.info()
    assert info.os_type == "linux"
    assert info.server_version
    assert docker.system.disk_free().images.total_count > 0
    docker.container.prune(filters={"label": "nosuch"})
    docker.network.prune(filters={"label": "nosuch"})
    docker.volume.prune(filters={"label": "nosuch"})
    docker.image.prune()


if __name__ == "__main__":
    print(subprocess.run(["docker", "--version"], capture_output=True, text=True, check=True).stdout, end="")
    run_all(lambda function: function())
