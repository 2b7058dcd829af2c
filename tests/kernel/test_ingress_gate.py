"""What HAProxy does beside Caddy: TCP by the name that TLS asks for, and rates; and ports, which the kernel passes on."""

from __future__ import annotations

import datetime
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestrator import authority
from tests.conftest import Pystack, Stack, cluster_of, eventually
from tests.images import archive, busybox_rootfs, tar_of

ECHO = """
services:
  {name}:
    image: tlsbox
    command: /bin/openssl s_server -accept 7000 -cert /{name}.pem -www -quiet
    expose: [7000]
    stop_signal: SIGKILL
    deploy: {{replicas: {replicas}}}
    x-ingress:
      - {{host: {host}, tcp: {port}, port: 7000{more}}}
"""
LIMITED = """
services:
  web:
    image: busybox
    command: httpd -f -p 8080 -h /srv
    expose: [8080]
    stop_signal: SIGKILL
    x-ingress:
      - {host: slow.internal, path: /hello, port: 8080, rate_limit: 5/m}
      - {host: slow.internal, port: 8080}
"""
PORTS = """
services:
  web:
    image: tlsbox
    command: sh -c 'nc -ll -p 5432 -e cat & exec openssl s_server -dtls -accept 5353 -cert /red.pem -quiet'
    stop_signal: SIGKILL
    x-ingress:
      - {tcp: 15432, port: 5432}
      - {udp: 15353, port: 5353}
"""


def load_tlsbox(lab: Pystack, folder: Path) -> None:
    """An image with openssl, and a certificate of its own for each of two names."""
    program = shutil.which("openssl")
    assert program
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    files: dict[str, bytes | str | None] = {"bin/openssl": Path(program).read_bytes()}
    files |= {p.lstrip("/"): Path(p).read_bytes() for p in re.findall(r"(/\S+) \(0x", linked)}
    now = datetime.datetime.now(datetime.UTC)
    root = authority.make_root("the service's own", now)
    (folder / "own.pem").write_text(authority.root_certificate(root))
    for name in ("red", "blue"):
        files[f"{name}.pem"] = authority.issue(root, f"{name}.db.internal", now)
    archive(folder / "tlsbox.tar", [busybox_rootfs(), tar_of(files)], name="docker.io/library/tlsbox:latest")
    lab("image", "load", "-i", str(folder / "tlsbox.tar"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pystack]:
    with cluster_of(2) as pystack:
        load_tlsbox(pystack, tmp_path_factory.getbasetemp())
        pystack("ingress", "up", "--haproxy", "--count-requests")
        yield pystack


ECHOED = """
import socket, sys
one = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
one.sendall(b"hello\\n")
print(one.recv(100).decode(), end="")
"""


def echoed(lab: Pystack, node: int, port: int) -> str:
    """What comes back of a line without TLS, "" if the connection is closed."""
    return lab.on("outside", sys.executable, "-c", ECHOED, f"10.99.0.{node}", str(port))


def who_answers(lab: Pystack, tmp: Path, host: str, node: int, port: int) -> str:
    """The name in the certificate of the one that answers for *host*, "" for a connection that is closed."""
    ask = f"openssl s_client -connect 10.99.0.{node}:{port} -servername {host} -CAfile {tmp}/own.pem -verify_return_error"
    return lab.on("outside", "sh", "-c", f"{ask} </dev/null 2>/dev/null | openssl x509 -noout -ext subjectAltName || true")


def test_tls_connections_go_by_their_name_and_stay_encrypted_to_the_task(
    stack: Stack, lab: Pystack, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    own = tmp_path_factory.getbasetemp()
    stack.up(ECHO.format(name="red", host="red.db.internal", port=7443, replicas=2, more=""))
    other = Stack(lab, tmp_path / "other")
    other.directory.mkdir()
    try:
        other.up(ECHO.format(name="blue", host="'*.db.internal'", port=7443, replicas=1, more=""))
        for node in (1, 2):
            assert "red.db.internal" in who_answers(lab, own, "red.db.internal", node, 7443)
            assert "blue.db.internal" in who_answers(lab, own, "blue.db.internal", node, 7443), "by the wildcard"
            assert who_answers(lab, own, "blue.elsewhere.internal", node, 7443) == "", "nobody's name"
            assert echoed(lab, node, 7443) == "", "without TLS there is no name"
        (row,) = [r for r in lab.json("ingress", "ls", "--format", "json") if r["stack"] == stack.name]
        assert (row["path"], row["tls"], row["tasks"], row["state"]) == (":7443", "passthrough", 2, "ok")
        assert "ends" not in lab("doctor", check=False).stdout, "no certificate of the cluster's"
    finally:
        other.down()
    eventually(lambda: _equal(who_answers(lab, own, "blue.db.internal", 1, 7443), ""))


def _equal(found: object, wanted: object) -> None:
    assert found == wanted


def test_only_clients_that_are_allowed_get_to_a_named_service(
    stack: Stack, lab: Pystack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = tmp_path_factory.getbasetemp()
    stack.up(ECHO.format(name="red", host="red.db.internal", port=7443, replicas=1, more=", allow: [192.0.2.0/24]"))
    assert who_answers(lab, own, "red.db.internal", 1, 7443) == ""
    stack.up(ECHO.format(name="red", host="red.db.internal", port=7443, replicas=1, more=", allow: [10.99.0.0/24]"))
    assert "red" in who_answers(lab, own, "red.db.internal", 1, 7443)


def codes(lab: Pystack, root: str, node: int, path: str, times: int, *more: str) -> Counter[str]:
    at = f"slow.internal:443:10.99.0.{node}"
    ask = ("curl", "-sS", "-m", "20", "--cacert", root, "--resolve", at, "-w", "%{http_code}\n", *more)
    return Counter(lab.on("outside", *ask, *(("-o", "/dev/null", f"https://slow.internal{path}") * times)).split())


def test_a_client_beyond_its_rate_gets_429_and_other_paths_and_nodes_do_not_count(
    stack: Stack, lab: Pystack, tmp_path: Path
) -> None:
    stack.up(LIMITED)
    (tmp_path / "root.pem").write_text(lab("ingress", "ca").stdout)
    root = str(tmp_path / "root.pem")
    assert codes(lab, root, 1, "/second", 12) == {"200": 12}, "no limit there"
    first = codes(lab, root, 1, "/hello", 8, "-H", "X-Forwarded-For: 203.0.113.9", "-H", "X-Pystack-Client: 203.0.113.9")
    assert first == {"200": 5, "429": 3}, "what a client says of its address does not count"
    assert codes(lab, root, 2, "/hello", 1) == {"200": 1}, "each node counts for itself"
    codes(lab, root, 2, "/missing", 2)
    eventually(lambda: _counted(lab, {"200": 18, "404": 2}))  # those beyond the rate are not forwarded
    lab.on("outside", "ip", "addr", "add", "10.99.0.253/24", "dev", "eth0")
    assert codes(lab, root, 1, "/hello", 1, "--interface", "10.99.0.253") == {"200": 1}, "another client"
    lab.on("n1", "sh", "-c", "kill -9 $(pgrep -x haproxy)")
    eventually(lambda: _equal(codes(lab, root, 1, "/hello", 1), {"200": 1}), 60)


def _counted(lab: Pystack, wanted: dict[str, int]) -> None:
    socket = lab.environment["PYSTACK_HOST"].removeprefix("unix://")
    ask = ["curl", "-sSf", "--unix-socket", socket, "http://localhost/metrics"]
    text = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    of_host = [s for s in samples if s.labels.get("host") == "slow.internal"]
    assert {s.labels["code"]: s.value for s in of_host if s.name == "pystack_ingress_requests_total"} == wanted
    assert [s.value for s in of_host if s.name == "pystack_ingress_request_seconds_count"] == [sum(wanted.values())]


def test_ports_without_a_name_are_passed_on_by_every_node(stack: Stack, lab: Pystack) -> None:
    stack.up(PORTS)
    for node in (1, 2):
        assert echoed(lab, node, 15432) == "hello\n"
    ask = "(sleep 2) | timeout 20 openssl s_client -dtls -connect 10.99.0.2:15353 2>/dev/null || true"
    assert "red.db.internal" in lab.on("outside", "sh", "-c", f"({ask}) | openssl x509 -noout -ext subjectAltName || true")
    ports = {str(p) for row in stack.ps().values() for p in row["ports"]}  # type: ignore[attr-defined]
    assert any("15432" in p for p in ports), ports


def test_what_haproxy_is_needed_for_is_refused_without_it_and_ports_have_one_use(
    stack: Stack, lab: Pystack, tmp_path: Path
) -> None:
    stack.up(LIMITED)
    refused = lab("ingress", "up", "--no-haproxy", check=False)
    assert refused.returncode == 1
    assert f"{stack.file}:" in refused.stderr
    assert "`pystack ingress up --haproxy`" in refused.stderr
    for text, why in (
        (ECHO.format(name="red", host="red.internal", port=443, replicas=1, more=""), "port 443 is for http and https"),
        (
            ECHO.format(name="red", host="red.internal", port=7443, replicas=1, more="").replace(
                "expose: [7000]", "ports: ['7443:7000']"
            ),
            "port 7443 is that of the cluster's ingress",
        ),
    ):
        file = tmp_path / "wrong.yml"
        file.write_text(text)
        assert why in lab("plan", "-f", str(file), "-p", "wrong", check=False).stderr


def test_what_is_not_given_again_stays_and_what_changes_is_shown(lab: Pystack) -> None:
    def settings() -> dict[str, object]:
        found: dict[str, object] = json.loads(lab("ingress", "inspect").stdout)["settings"]
        return found

    before = settings()
    assert before["gate"]
    assert before["count_requests"]
    assert "ingress:" not in lab("ingress", "up").stderr, "nothing changes"
    assert settings() == before
    try:
        said = lab("ingress", "up", "--no-count-requests").stderr
        assert "count_requests: true → false" in said
        assert settings() == {name: value for name, value in before.items() if name != "count_requests"}
    finally:
        lab("ingress", "up", "--count-requests")
    assert settings() == before
