"""docker-py against a node's socket: what its users write, and what tools that read Docker's documents look for."""

from __future__ import annotations

import io
import platform
import socket
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container
from docker.types import IPAMConfig, IPAMPool, LogConfig, Mount, Ulimit

from tests.conftest import Pystack, eventually

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def client(lab: Pystack) -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(base_url=f"unix://{lab.environment['PYSTACK_ROOT']}/run/docker.sock", timeout=60)
    yield made
    made.close()


@pytest.fixture
def one(client: docker.DockerClient) -> Iterator[Container]:
    made = client.containers.run(
        "busybox",
        ["sh", "-c", "echo one; echo two >&2; sleep 1000"],
        detach=True,
        name="one",
        labels={"a": "b"},
        environment={"X": "1"},
        ports={"80/tcp": ("127.0.0.1", None)},
        hostname="hh",
        mem_limit="64m",
        cpu_shares=512,
        working_dir="/tmp",
        user="app",
        stdin_open=True,
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 3},
        volumes={"v1": {"bind": "/v", "mode": "ro"}},
        tmpfs={"/t": "size=1m"},
        cap_add=["NET_ADMIN"],
        cap_drop=["MKNOD"],
        dns=["1.1.1.1"],
        extra_hosts={"ex": "1.2.3.4"},
        init=True,
        log_config=LogConfig(config={"max-size": "1m"}),
        pids_limit=50,
        ulimits=[Ulimit(name="nofile", soft=100, hard=200)],
        sysctls={"net.ipv4.ip_default_ttl": "70"},
        shm_size="32m",
        security_opt=["no-new-privileges"],
        stop_signal="SIGKILL",
        oom_score_adj=100,
        blkio_weight=300,
        healthcheck={"test": ["CMD", "true"], "interval": 200_000_000},
        cpuset_cpus="0",
        cpu_period=100_000,
        cpu_quota=50_000,
        mac_address="02:42:ac:11:65:43",
        domainname="example.org",
        memswap_limit="128m",
    )
    yield made
    made.remove(force=True, v=True)
    client.volumes.get("v1").remove()


def test_an_inspected_container_says_what_was_asked(one: Container) -> None:
    one.reload()
    host, config, network = (one.attrs[k] for k in ("HostConfig", "Config", "NetworkSettings"))
    asked = {
        "Binds": ["v1:/v:ro"],
        "CpuShares": 512,
        "Memory": 64 << 20,
        "MemorySwap": 128 << 20,
        "PidsLimit": 50,
        "CapAdd": ["NET_ADMIN"],
        "CapDrop": ["MKNOD"],
        "Dns": ["1.1.1.1"],
        "ExtraHosts": ["ex:1.2.3.4"],
        "Init": True,
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        "ShmSize": 32 << 20,
        "OomScoreAdj": 100,
        "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
        "Sysctls": {"net.ipv4.ip_default_ttl": "70"},
        "SecurityOpt": ["no-new-privileges"],
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
        "Tmpfs": {"/t": "size=1m"},
        "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]},
        "CpuPeriod": 100_000,
        "CpuQuota": 50_000,
        "CpusetCpus": "0",
        "BlkioWeight": 300,
        "Privileged": False,
    }
    assert {k: host[k] for k in asked} == asked
    assert (config["Hostname"], config["Domainname"], config["User"]) == ("hh", "example.org", "app")
    assert config["Cmd"] == ["sh", "-c", "echo one; echo two >&2; sleep 1000"]
    assert config["Healthcheck"] == {
        "Test": ["CMD", "true"],
        "Interval": 200_000_000,
    }
    assert (one.attrs["Path"], one.attrs["Args"][0]) == ("sh", "-c")
    assert network["MacAddress"] == network["Networks"]["bridge"]["MacAddress"] == "02:42:ac:11:65:43"
    assert network["Gateway"]
    assert network["Ports"]["80/tcp"][0]["HostIp"] == "127.0.0.1"
    (mount,) = one.attrs["Mounts"]
    assert (mount["Type"], mount["Name"], mount["RW"]) == ("volume", "v1", False)
    assert mount["Source"].endswith("/v1/_data")


def test_variables_keep_the_order_in_which_they_were_sent(client: docker.DockerClient) -> None:
    made = client.containers.create("busybox", "true", environment=["B=2", "A=1"])
    try:
        assert made.attrs["Config"]["Env"][:2] == ["B=2", "A=1"]
    finally:
        made.remove()


def test_lists_are_narrowed(client: docker.DockerClient, one: Container) -> None:
    other = client.containers.create("busybox", "true", name="other")
    listed = client.containers.list

    def healthy() -> None:
        assert [c.name for c in listed(filters={"health": "healthy"})] == ["one"]

    try:
        eventually(healthy, 10)
        found: dict[str, Any] = {
            "name": "on",
            "label": ["a=b", "a"],
            "status": "running",
            "id": one.id[:10],
            "volume": "v1",
            "ancestor": "busybox",
            "network": "bridge",
        }
        for key, value in found.items():
            assert "one" in [c.name for c in listed(filters={key: value})], key
        for key, value in {"name": "none", "label": "a=c", "status": "paused", "volume": "v2", "ancestor": "other"}.items():
            assert listed(filters={key: value}) == [], key
        assert [c.name for c in listed(all=True, since=one.id)] == ["other"]
        assert "one" in [c.name for c in listed(all=True, before=other.id)]
        assert len(listed(limit=1)) == 1
        assert client.api.containers(size=True)[0]["SizeRootFs"] > 0
        with pytest.raises(docker.errors.APIError, match="Invalid filter 'colour'"):
            listed(filters={"colour": "red"})
    finally:
        other.remove()


def test_networks_are_joined_and_left_while_a_container_runs(client: docker.DockerClient) -> None:
    pool = IPAMPool(subnet="172.28.0.0/16", gateway="172.28.0.254", iprange="172.28.5.0/24", aux_addresses={"x": "172.28.5.5"})
    first = client.networks.create("first", ipam=IPAMConfig(pool_configs=[pool]), attachable=True, labels={"q": "r"})
    second = client.networks.create("second")
    a = client.containers.run("busybox", "sleep 1000", detach=True, name="aa", network="first", stop_signal="SIGKILL")
    b = client.containers.run("busybox", "sleep 1000", detach=True, name="bb", network="first", stop_signal="SIGKILL")
    try:
        assert first.attrs["IPAM"]["Config"] == [
            {
                "Subnet": "172.28.0.0/16",
                "Gateway": "172.28.0.254",
                "IPRange": "172.28.5.0/24",
                "AuxiliaryAddresses": {"x": "172.28.5.5"},
            }
        ]
        assert (first.attrs["Attachable"], first.attrs["Labels"]) == (True, {"q": "r"})
        assert [n.name for n in client.networks.list(filters={"label": "q=r"})] == ["first"]
        second.connect(a)
        second.connect(b, aliases=["bee"], ipv4_address=second.attrs["IPAM"]["Config"][0]["Subnet"].replace(".0/24", ".77"))
        code, said = a.exec_run("ping -c 1 bee")
        assert code == 0, said
        assert b".77" in said
        assert b.exec_run("ip address show eth1").exit_code == 0
        second.reload()
        assert {c.name for c in second.containers} == {"aa", "bb"}
        with pytest.raises(docker.errors.APIError, match="already exists in network second"):
            second.connect(a)
        b.restart(timeout=0)  # what it was put on it stays on
        assert a.exec_run("ping -c 1 bee").exit_code == 0
        second.disconnect(b)
        assert a.exec_run("ping -c 1 -W 1 bee").exit_code != 0
        assert b.exec_run("ip link show eth1").exit_code != 0
        first.disconnect(a)
        assert a.exec_run("ping -c 1 bb").exit_code != 0
        with pytest.raises(docker.errors.APIError, match="has active endpoints"):
            second.remove()
        with pytest.raises(docker.errors.APIError, match="pre-defined"):
            client.networks.get("host").remove()
    finally:
        for container in (a, b):
            container.remove(force=True)
    assert set(client.networks.prune()["NetworksDeleted"]) >= {"first", "second"}


def test_streams_and_files(one: Container) -> None:
    one.exec_run("true")
    assert one.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True).output == (b"o\n", b"e\n")
    assert one.exec_run(["sh", "-c", "echo o > /dev/stdout; echo e > /dev/stderr"], demux=True).output == (b"o\n", b"e\n")
    assert one.exec_run("nosuchprogram").exit_code == 127
    assert b"Q=9" in one.exec_run("env", environment={"Q": "9"}, user="root", workdir="/").output
    started = one.client.api.exec_create(one.id, "sh -c 'exit 4'", user="app")
    one.client.api.exec_start(started)
    looked = one.client.api.exec_inspect(started)
    assert (looked["ExitCode"], looked["Running"], looked["ProcessConfig"]["user"]) == (4, False, "app")
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        entry = tarfile.TarInfo("x.txt")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"abc"))
    assert one.put_archive("/tmp", raw.getvalue())
    pieces, status = one.get_archive("/tmp/x.txt")
    assert (status["name"], status["size"]) == ("x.txt", 3)
    assert b"abc" in b"".join(pieces)
    assert {"Path": "/tmp/x.txt", "Kind": 1} in one.diff()
    assert not [d for d in one.diff() if d["Path"] in ("/dev", "/proc", "/etc/hosts", "/etc")]
    one.update(mem_limit="96m", memswap_limit="192m")
    one.reload()
    assert one.attrs["HostConfig"]["Memory"] == 96 << 20


def test_images_and_builds(client: docker.DockerClient) -> None:
    image, _ = client.images.build(
        fileobj=io.BytesIO(b"FROM busybox\nARG A\nLABEL said=$A\nRUN echo built > /built\n"),
        tag="pybuilt:1",
        buildargs={"A": "q"},
    )
    try:
        assert image.labels["said"] == "q"
        steps = image.history()
        assert steps[0]["Tags"] == ["pybuilt:1"]
        assert any("echo built" in s["CreatedBy"] and s["Size"] > 0 for s in steps)
        assert [i.tags for i in client.images.list(filters={"reference": "pybuilt*"})] == [["pybuilt:1"]]
        assert [i.tags for i in client.images.list(filters={"label": "said=q"})] == [["pybuilt:1"]]
        whole = b"".join(image.save(named=True))
        client.images.remove("pybuilt:1")
        (again,) = client.images.load(whole)
        assert again.tags == ["pybuilt:1"]
        assert client.containers.run("pybuilt:1", "cat /built", remove=True) == b"built\n"
    finally:
        client.images.remove("pybuilt:1", force=True)
    with pytest.raises(docker.errors.BuildError):
        client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN false\n"))
    client.api.prune_builds()
    client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN echo again > /again\n"), tag="pybuilt:2")
    client.images.remove("pybuilt:2")


def test_a_build_with_all_that_can_be_asked_for(client: docker.DockerClient, tmp_path: Path) -> None:
    """Source: Docker SDK for Python, ImageCollection.build."""
    (tmp_path / ".dockerignore").write_text("*.log\n")
    (tmp_path / "a.txt").write_text("of the context")
    (tmp_path / "a.log").write_text("left out")
    text = (
        "FROM busybox AS first\nARG WORD=none\nCOPY . /all/\nRUN echo $WORD > /word; ls /all > /list; cat /etc/hosts > /hosts; "
        "df -k /dev/shm | tail -1 > /shm; ls /sys/class/net > /net; cat /sys/fs/cgroup/memory.max "
        "/sys/fs/cgroup/memory/memory.limit_in_bytes > /memory 2> /dev/null; true\nFROM first\nRUN false\n"
    )
    (tmp_path / "Other").write_text(text)
    words: dict[str, Any] = {
        "tag": "pywhole:1",
        "dockerfile": "Other",
        "rm": True,
        "forcerm": True,
        "pull": False,
        "buildargs": {"WORD": "said"},
        "container_limits": {"memory": 64 << 20, "memswap": 128 << 20, "cpushares": 512, "cpusetcpus": "0"},
        "shmsize": 8 << 20,
        "labels": {"a": "b"},
        "cache_from": ["busybox", "pywhole:1"],
        "target": "first",
        "network_mode": "none",
        "extra_hosts": {"there": "10.1.2.3"},
        "platform": "linux/amd64" if platform.machine() == "x86_64" else "linux/arm64",
        "isolation": "default",
        "use_config_proxy": False,
    }
    try:
        image, said = client.images.build(path=str(tmp_path), **words)
        assert image.labels["a"] == "b"
        assert "Successfully tagged pywhole:1" in "".join(line.get("stream", "") for line in said)

        def file(path: str) -> str:
            return str(client.containers.run("pywhole:1", ["cat", path], remove=True).decode())

        assert (file("/word"), file("/net")) == ("said\n", "lo\n")
        assert file("/list").split() == ["Other", "a.txt"]
        assert "10.1.2.3\tthere\n" in file("/hosts")
        assert file("/shm").split()[1] == "8192"
        assert file("/memory") == f"{64 << 20}\n"
        again, _ = client.images.build(path=str(tmp_path), gzip=True, **words)
        assert again.id == image.id
        fresh, _ = client.images.build(path=str(tmp_path), nocache=True, **words)
        assert fresh.id != image.id
    finally:
        client.images.remove("pywhole:1", force=True)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(tmp_path, arcname=".")
    packed.seek(0)
    own, _ = client.images.build(
        fileobj=packed, custom_context=True, encoding="gzip", dockerfile="Other", target="first", quiet=True
    )
    assert client.containers.run(own.id, ["cat", "/all/a.txt"], remove=True) == b"of the context"
    client.images.remove(own.id, force=True)
    with pytest.raises(docker.errors.APIError, match="squash"):
        client.images.build(path=str(tmp_path), dockerfile="Other", squash=True)


def test_events_have_a_beginning_and_an_end(client: docker.DockerClient) -> None:
    begin = time.time()
    client.containers.run("busybox", "true", name="brief", remove=True)
    events = client.events(decode=True, since=begin, until=time.time() + 0.2, filters={"container": "brief"})
    assert [e["Action"] for e in events][:3] == ["create", "start", "die"]


def test_a_mount_of_each_kind(client: docker.DockerClient) -> None:
    run = client.containers.run
    volume = client.volumes.create("pyvol", labels={"k": "w"})
    try:
        assert [v.name for v in client.volumes.list(filters={"label": "k=w"})] == ["pyvol"]
        assert "pyvol" in [v.name for v in client.volumes.list(filters={"dangling": True})]
        run("busybox", "sh -c 'echo kept > /d/f'", volumes=["pyvol:/d"], remove=True)
        assert run("busybox", "cat /d/f", mounts=[Mount("/d", "pyvol", read_only=True)], remove=True) == b"kept\n"
        assert b"tmpfs" in run(
            "busybox", "grep /tm /proc/mounts", mounts=[Mount("/tm", "", type="tmpfs", tmpfs_size="1m")], remove=True
        )
        assert run("busybox", "ls -d /anonymous", volumes=["/anonymous"], remove=True) == b"/anonymous\n"
    finally:
        volume.remove()


def test_what_is_wrong_is_refused_and_spoils_nothing(client: docker.DockerClient) -> None:
    """One bad network among those of a node would be in the way of all containers."""
    for pool, said in (
        (IPAMPool(subnet="300.1.1.0/24"), "300.1.1.0/24"),
        (IPAMPool(subnet="10.91.0.0/24", gateway="10.92.0.1"), "not within"),
        (IPAMPool(subnet="10.91.0.0/24", iprange="10.91.0.0/16"), "not within"),
    ):
        with pytest.raises(docker.errors.APIError, match=said):
            client.networks.create("wrong", ipam=IPAMConfig(pool_configs=[pool]))
    first = client.networks.create("first", ipam=IPAMConfig(pool_configs=[IPAMPool(subnet="10.91.0.0/24")]), enable_ipv6=True)
    assert "10.91.0.1" in [p["Gateway"] for p in first.attrs["IPAM"]["Config"]]
    assert first.attrs["EnableIPv6"]
    with pytest.raises(docker.errors.APIError, match=r"overlaps with 10\.91\.0\.0/24"):
        client.networks.create("second", ipam=IPAMConfig(pool_configs=[IPAMPool(subnet="10.91.0.0/16")]))
    first.remove()
    for wish, said in (
        ({"name": "a b"}, "Invalid container name"),
        ({"log_config": LogConfig(type="nosuch")}, "error looking up logging plugin nosuch"),
    ):
        with pytest.raises(docker.errors.APIError, match=said):
            client.containers.create("busybox", "true", **wish)
    assert client.containers.run("busybox", "echo well", remove=True) == b"well\n"


def test_an_ended_container_says_again_what_it_said(client: docker.DockerClient) -> None:
    ended = client.containers.run("busybox", ["sh", "-c", "echo o; echo e >&2"], detach=True, ports={"81/tcp": None})
    ended.wait()
    assert ended.attach(stdout=True, stderr=True, logs=True, demux=True) == (b"o\n", b"e\n")
    ended.commit("pycommit", "1", conf={"Cmd": ["echo", "committed"], "Labels": {"l": "1"}})
    assert client.containers.run("pycommit:1", remove=True) == b"committed\n"
    client.images.remove("pycommit:1")
    assert "81/tcp" in ended.attrs["Config"]["ExposedPorts"]
    ended.remove()


def test_what_it_is_not(client: docker.DockerClient) -> None:
    for ask in (client.services.list, client.nodes.list, client.secrets.list):
        with pytest.raises(docker.errors.APIError, match="not a swarm manager"):
            ask()
    assert client.plugins.list() == []
    info = client.info()
    assert info["Swarm"]["LocalNodeState"] == "inactive"
    assert "bridge" in info["Plugins"]["Network"]


def test_containers_that_start_together_have_addresses_of_their_own(client: docker.DockerClient) -> None:
    """An address is a container's from its start to its end, as in Docker: none while it is only created."""
    made = [client.containers.create("busybox", ["sleep", "1000"], name=f"twin{n}", stop_signal="SIGKILL") for n in range(6)]
    try:
        assert [c.attrs["NetworkSettings"]["IPAddress"] for c in made] == [""] * 6
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(Container.start, made))
        for c in made:
            c.reload()
        addresses = [c.attrs["NetworkSettings"]["IPAddress"] for c in made]
        assert len(set(addresses)) == 6
        inside = [c.exec_run(["ip", "-4", "-o", "addr", "show", "eth0"]).output.decode() for c in made]
        assert all(f"inet {address}/" in said for address, said in zip(addresses, inside, strict=True))
        made[0].restart(timeout=0)
        made[0].reload()
        assert made[0].attrs["NetworkSettings"]["IPAddress"] == addresses[0]
    finally:
        for c in made:
            c.remove(force=True)


def test_one_of_two_that_want_the_same_port_or_address_starts(client: docker.DockerClient) -> None:
    network = client.networks.create("fixed", ipam=IPAMConfig(pool_configs=[IPAMPool(subnet="172.29.7.0/24")]))
    made, api = [], client.api
    endpoint = api.create_networking_config({"fixed": api.create_endpoint_config(ipv4_address="172.29.7.9")})
    try:
        for number in range(2):
            made.append(client.containers.create("busybox", ["sleep", "1000"], name=f"port{number}", ports={"80/tcp": 8097}))
            host = api.create_host_config(network_mode="fixed")
            how = {"name": f"fixed{number}", "host_config": host, "networking_config": endpoint}
            made.append(client.containers.get(api.create_container("busybox", "sleep 1000", **how)["Id"]))

        def start(one: Container) -> str:
            try:
                one.start()
            except docker.errors.APIError as error:
                assert error.status_code == 409
                return str(error.explanation)
            return ""

        with ThreadPoolExecutor(4) as pool:
            said = sorted(filter(None, pool.map(start, made)))
        assert len(said) == 2
        assert "Address already in use: 172.29.7.9 of network fixed is container fixed" in said[0]
        assert "port 8097/tcp is already published by port" in said[1]
    finally:
        for c in made:
            c.remove(force=True)
        network.remove()


def test_the_head_of_a_stream_comes_alone(client: docker.DockerClient, one: Container, lab: Pystack) -> None:
    """docker-py reads the head through a buffer and the stream behind it: what comes with the head would be lost."""
    ident = client.api.exec_create(one.id, ["sh", "-c", "echo out; echo err >&2; touch /t/said"])["Id"]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(f"{lab.environment['PYSTACK_ROOT']}/run/docker.sock")
        body = b'{"Detach": false, "Tty": false}'
        head = f"POST /exec/{ident}/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        sock.sendall(head.encode() + b"\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + body)

        def said() -> None:
            assert one.exec_run("test -f /t/said").exit_code == 0

        eventually(said)
        assert sock.recv(1 << 16).endswith(b"\r\n\r\n")
        stream = b""
        while data := sock.recv(1 << 16):
            stream += data
    assert sorted(stream.split(b"\n")) == [b"", b"\x01\0\0\0\0\0\0\x04out", b"\x02\0\0\0\0\0\0\x04err"]


def test_memory_is_shared_with_those_who_may(client: docker.DockerClient) -> None:
    def run(name: str, **how: Any) -> Container:
        return client.containers.run("busybox", ["sleep", "1000"], detach=True, name=name, stop_signal="SIGKILL", **how)

    donor = run("donor", ipc_mode="shareable", shm_size="4m")
    run("closed")
    try:
        user = run("user", ipc_mode="container:donor")
        assert user.exec_run(["sh", "-c", "echo word > /dev/shm/w"]).exit_code == 0
        assert donor.exec_run(["cat", "/dev/shm/w"]).output == b"word\n"
        assert user.exec_run(["stat", "-f", "-c", "%b %S", "/dev/shm"]).output == b"1024 4096\n"
        donor.reload()
        assert donor.attrs["HostConfig"]["IpcMode"] == "shareable"
        with pytest.raises(docker.errors.APIError, match="non-shareable IPC"):
            run("refused", ipc_mode="container:closed")
        donor.remove(force=True)
        assert user.exec_run(["cat", "/dev/shm/w"]).output == b"word\n"
    finally:
        for name in ("user", "donor", "closed", "refused"):
            for one in client.containers.list(all=True, filters={"name": f"^{name}$"}):
                one.remove(force=True)
