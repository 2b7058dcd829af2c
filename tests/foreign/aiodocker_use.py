"""aiodocker: what its documentation shows."""

from __future__ import annotations

import asyncio
import contextlib
import io
import tarfile
import uuid

import aiodocker
from cases import case, run_all

SLEEP = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]


def name():
    return f"aio{uuid.uuid4().hex[:8]}"


@contextlib.asynccontextmanager
async def running(docker, **config):
    made = await docker.containers.run(config={"Image": "busybox", "Cmd": SLEEP, **config}, name=name())
    try:
        yield made
    finally:
        await made.delete(force=True, v=True)


@case
async def life_cycle(docker):
    made = await docker.containers.create_or_replace(
        config={"Image": "busybox", "Cmd": ["sh", "-c", "echo out; echo err >&2; exit 3"]}, name=name()
    )
    assert (await made.show())["State"]["Status"] == "created"
    await made.start()
    assert (await made.wait())["StatusCode"] == 3
    assert await made.log(stdout=True) == ["out\n"]
    assert await made.log(stderr=True) == ["err\n"]
    await made.delete()
    with_error = None
    try:
        await made.show()
    except aiodocker.DockerError as error:
        with_error = error
    assert with_error is not None
    assert with_error.status == 404
    assert "No such container" in with_error.message


@case
async def verbs(docker):
    async with running(docker, Labels={"aio": "1"}) as made:
        await made.pause()
        assert (await made.show())["State"]["Paused"]
        await made.unpause()
        await made.restart(timeout=1)
        await made.rename(other := name())
        assert (await docker.containers.get(other)).id == made.id
        listed = await docker.containers.list(filters={"label": ["aio=1"]})
        assert [c.id for c in listed] == [made.id]
        await made.stop(timeout=5)
        shown = await made.show()
        assert (shown["State"]["Status"], shown["State"]["ExitCode"]) == ("exited", 0)
        await made.start()
        await made.kill(signal="KILL")
        assert (await made.wait())["StatusCode"] == 137


@case
async def logs_follow(docker):
    made = await docker.containers.run(
        config={"Image": "busybox", "Cmd": ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done"]}, name=name()
    )
    seen = [line async for line in made.log(stdout=True, follow=True)]
    assert seen == ["1\n", "2\n", "3\n"], seen
    await made.delete(force=True)


@case
async def executes(docker):
    async with running(docker) as made:
        execution = await made.exec(["sh", "-c", "echo o; echo e >&2; exit 4"])
        said = {1: b"", 2: b""}
        async with execution.start(detach=False) as stream:
            while message := await stream.read_out():
                said[message.stream] += message.data
        assert said == {1: b"o\n", 2: b"e\n"}, said
        assert (await execution.inspect())["ExitCode"] == 4
        execution = await made.exec(["cat"], stdin=True, tty=True)
        async with execution.start(detach=False) as stream:
            await execution.resize(w=120, h=10)
            await stream.write_in(b"typed\n")
            read = b""
            while b"typed\r\ntyped\r\n" not in read:
                message = await stream.read_out()
                assert message is not None, read
                read += message.data
            await stream.write_in(b"\x04")
            assert await stream.read_out() is None
        assert (await execution.inspect())["ExitCode"] == 0
        quiet = await made.exec(["touch", "/tmp/detached"])
        await quiet.start(detach=True)


@case
async def attaches(docker):
    made = await docker.containers.create(
        config={
            "Image": "busybox",
            "Cmd": ["cat"],
            "OpenStdin": True,
            "StdinOnce": True,
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
        },
        name=name(),
    )
    async with made.attach(stdin=True, stdout=True, stderr=True) as stream:
        await made.start()
        await stream.write_in(b"to and fro\n")
        message = await stream.read_out()
        assert (message.stream, message.data) == (1, b"to and fro\n")
    await made.wait()
    await made.delete(force=True)


@case
async def by_websocket(docker):
    made = await docker.containers.create(
        config={"Image": "busybox", "Cmd": ["cat"], "OpenStdin": True, "Tty": True, "AttachStdin": True}, name=name()
    )
    await made.start()
    socket = await made.websocket(stdin=True, stdout=True, stderr=True, stream=True)
    await socket.send_str("by socket\n")
    said = b""
    while b"by socket\r\nby socket\r\n" not in said:
        message = await asyncio.wait_for(socket.receive(), 20)
        said += message.data if isinstance(message.data, bytes) else message.data.encode()
    await socket.close()
    await made.delete(force=True)


@case
async def archives(docker):
    async with running(docker) as made:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            entry = tarfile.TarInfo("file")
            entry.size = 5
            archive.addfile(entry, io.BytesIO(b"hello"))
        await made.put_archive("/tmp", out.getvalue())
        got = await made.get_archive("/tmp/file")
        assert got.extractfile("file").read() == b"hello"


@case
async def ports(docker):
    async with running(
        docker,
        Cmd=["httpd", "-f", "-p", "80", "-h", "/srv"],
        ExposedPorts={"80/tcp": {}},
        HostConfig={"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]}},
    ) as made:
        (where,) = await made.port(80)
        assert where["HostIp"] == "127.0.0.1"
        said = b""
        while b"hello from the image" not in said:  # it does not listen from the first moment
            reader, writer = await asyncio.open_connection("127.0.0.1", int(where["HostPort"]))
            writer.write(b"GET /hello HTTP/1.0\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                said = await asyncio.wait_for(reader.read(), 20)
            writer.close()


@case
async def statistics(docker):
    async with running(docker) as made:
        (once,) = await made.stats(stream=False)
        assert once["memory_stats"]["usage"] > 0
        assert once["cpu_stats"]["system_cpu_usage"] > 0
        count = 0
        async for one in made.stats(stream=True):
            assert one["read"]
            count += 1
            if count == 2:
                break


@case
async def networks(docker):
    made = await docker.networks.create({"Name": name(), "Driver": "bridge", "Labels": {"aio": "n"}})
    async with running(docker) as one:
        await made.connect({"Container": one.id, "EndpointConfig": {"Aliases": ["other"]}})
        assert one.id in (await made.show())["Containers"]
        async with running(docker, HostConfig={"NetworkMode": (await made.show())["Name"]}) as two:
            execution = await two.exec(["ping", "-c", "1", "other"])
            async with execution.start(detach=False) as stream:
                while await stream.read_out():
                    pass
            assert (await execution.inspect())["ExitCode"] == 0
        await made.disconnect({"Container": one.id, "Force": True})
        assert not (await made.show())["Containers"]
    assert made.id in [n["Id"] for n in await docker.networks.list()]
    assert await made.delete()


@case
async def volumes(docker):
    made = await docker.volumes.create({"Name": name(), "Labels": {"aio": "v"}})
    shown = await made.show()
    assert shown["Driver"] == "local"
    async with running(docker, HostConfig={"Binds": [f"{shown['Name']}:/data"]}) as one:
        assert (await one.show())["Mounts"][0]["Name"] == shown["Name"]
        failed = 0
        try:
            await made.delete()
        except aiodocker.DockerError as error:
            failed = error.status
        assert failed == 409
    assert shown["Name"] in [v["Name"] for v in (await docker.volumes.list())["Volumes"]]
    await made.delete()


@case
async def images(docker):
    assert "busybox:latest" in (await docker.images.inspect("busybox"))["RepoTags"]
    tag = f"aio/{name()}"
    await docker.images.tag("busybox", tag, tag="one")
    assert f"{tag}:one" in [t for i in await docker.images.list() for t in i["RepoTags"]]
    async with docker.images.export_image(f"{tag}:one") as exported:
        whole = await exported.read()
    await docker.images.delete(f"{tag}:one")
    said = [line async for line in docker.images.import_image(iter_of(whole), stream=True)]
    assert f"Loaded image: {tag}:one" in str(said), said
    await docker.images.delete(f"{tag}:one")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        text = b"FROM busybox\nARG A=1\nRUN echo built$A > /built\n"
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    out.seek(0)
    lines = await docker.images.build(fileobj=out, encoding="gzip", tag=f"{tag}:built", buildargs={"A": "2"})
    assert any(f"Successfully tagged {tag}:built" in str(line) for line in lines), lines
    made = await docker.containers.run(config={"Image": f"{tag}:built", "Cmd": ["cat", "/built"]}, name=name())
    await made.wait()
    assert await made.log(stdout=True) == ["built2\n"]
    await made.commit(repository=tag, tag="committed", changes=["CMD true"])
    await made.delete()
    assert (await docker.images.inspect(f"{tag}:committed"))["Config"]["Cmd"] == ["/bin/sh", "-c", "true"]
    for which in ("committed", "built"):
        await docker.images.delete(f"{tag}:{which}")


async def iter_of(data):
    for start in range(0, len(data), 1 << 16):
        yield data[start : start + (1 << 16)]


@case
async def events(docker):
    heard = docker.events.subscribe()
    while True:  # it connects in the background
        await (await docker.volumes.create({"Name": name()})).delete()
        try:
            await asyncio.wait_for(heard.get(), 1)
            break
        except TimeoutError:
            pass
    made = await docker.containers.run(config={"Image": "busybox", "Cmd": ["true"]}, name=name())
    await made.wait()
    await made.delete()
    actions = []
    while "destroy" not in actions:
        event = await asyncio.wait_for(heard.get(), 20)
        assert event is not None
        if event["Actor"]["ID"] == made.id:
            actions.append(event["Action"])
            assert event["time"].year > 2000
    assert actions == ["create", "start", "die", "destroy"], actions


@case
async def system(docker):
    assert (await docker.version())["ApiVersion"]
    assert (await docker.system.info())["OSType"] == "linux"
    refused = []
    for ask in (docker.swarm.inspect, docker.services.list, docker.nodes.list, docker.secrets.list, docker.configs.list):
        try:
            await ask()
        except aiodocker.DockerError as error:
            refused.append((error.status, "swarm manager" in error.message))
    assert refused == [(503, True)] * 5, refused


async def main(function):
    async with aiodocker.Docker() as docker:
        await asyncio.wait_for(function(docker), 60)


if __name__ == "__main__":
    run_all(lambda function: asyncio.run(main(function)))
