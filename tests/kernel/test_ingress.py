"""The way in, on three nodes with a client beside them; certificates by the cluster itself and by a real ACME server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.asking import asking
from tests.conftest import Pystack, Stack, cluster_of, eventually

WEB = """
services:
  web:
    image: busybox
    command:
      - sh
      - -c
      - >-
        mkdir -p /tmp/w/cgi-bin; echo VERSION > /tmp/w/index.html;
        printf '#!/bin/sh\\necho; echo from $$HTTP_X_FORWARDED_FOR' > /tmp/w/cgi-bin/who; chmod +x /tmp/w/cgi-bin/who;
        exec httpd -f -p 8080 -h /tmp/w
    expose: [8080]
    stop_signal: SIGKILL
    pre_stop: [{command: sleep 0.3}]
    deploy: {replicas: 3, placement: {max_replicas_per_node: 2}, update_config: {parallelism: 1, order: start-first}}
    x-ingress: [{host: HOST, port: 8080}]
"""
LOAD = """
import collections, http.client, json, ssl, sys, time
root, host, *nodes = sys.argv[1:]
tls, seen, kept = ssl.create_default_context(cafile=root), collections.Counter(), {}
class Connection(http.client.HTTPSConnection):
    def __init__(self, node):
        super().__init__(host, timeout=20, context=tls)
        self.node = node
    def connect(self):
        import socket
        self.sock = tls.wrap_socket(socket.create_connection((self.node, 443), 20), server_hostname=host)
print("on", flush=True)
import select
number = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    node, number = nodes[number % len(nodes)], number + 1
    fresh = number % 2
    try:
        one = Connection(node) if fresh or node not in kept else kept[node]
        one.request("GET", "/")
        reply = one.getresponse()
        seen[f"{reply.status} {reply.read().decode().strip()}"] += 1
        if fresh:
            one.close()
        else:
            kept[node] = one
    except http.client.RemoteDisconnected:
        kept.pop(node, None)
        seen["closed while idle" if not fresh else "lost"] += 1
    except OSError as error:
        seen[repr(error)] += 1
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(3) as pystack:
        pystack("ingress", "up")
        yield pystack


def get(lab: Pystack, host: str, node: int, path: str = "/", *options: str, root: str = "") -> str:
    trusted = ("--cacert", root) if root else ()
    at = f"{host}:443:10.99.0.{node}"
    words = ("curl", "-sS", "-m", "20", *trusted, "--resolve", at, *options, f"https://{host}{path}")
    done = lab("lab", "exec", "--name", lab.lab, "outside", "--", *words, check=False)
    sys.stderr.write(done.stderr)  # why there is no answer is shown with the failure
    return done.stdout


def own_root(lab: Pystack, folder: Path) -> str:
    path = folder / "root.pem"
    path.write_text(lab("ingress", "ca").stdout)
    return str(path)


def web(host: str, version: str = "one") -> str:
    return WEB.replace("HOST", host).replace("VERSION", version)


def at_all_nodes(lab: Pystack, root: str, host: str) -> AbstractContextManager[dict[str, int]]:
    """Meanwhile a client asks all nodes in turn, on new connections and on kept ones; afterwards, what it was answered."""
    return asking(lab, LOAD, root, host, *(f"10.99.0.{n}" for n in (1, 2, 3)))


def test_one_up_leads_to_https_on_every_node(stack: Stack, lab: Pystack, tmp_path: Path) -> None:
    stack.up(web("shop.internal"))
    root = own_root(lab, tmp_path)
    for node in (1, 2, 3):
        eventually(lambda node=node: _in("one\n", get(lab, "shop.internal", node, root=root)), 3)  # type: ignore[misc]
        assert get(lab, "shop.internal", node, "/cgi-bin/who", root=root) == "from 10.99.0.254\n", "the client's own address"
    assert "certificate" in lab.on(
        "outside", "sh", "-c", "curl -sS --resolve shop.internal:443:10.99.0.1 https://shop.internal 2>&1 || true"
    )
    (row,) = lab.json("ingress", "ls", "--format", "json")
    assert (row["host"], row["tls"], row["tasks"], row["state"]) == ("shop.internal", "internal", 3, "ok")
    assert row["where"].startswith(str(stack.file))
    proxies = json.loads(lab("ingress", "inspect").stdout)["proxies"]
    assert {p["node"]: p["state"] for p in proxies} == dict.fromkeys(("n1", "n2", "n3"), "ready")


def test_updates_and_scaling_lose_no_request(stack: Stack, lab: Pystack, tmp_path: Path) -> None:
    """The service ends what it is at before it goes (pre_stop), as one that drains does."""
    stack.up(web("roll.internal"))
    with at_all_nodes(lab, own_root(lab, tmp_path), "roll.internal") as seen:
        stack.up(web("roll.internal", "two"))
        lab("scale", "-f", str(stack.file), "-p", stack.name, "web=1")
        lab("scale", "-f", str(stack.file), "-p", stack.name, "web=3")
        stack.up(web("roll.internal", "three"))
    answers = {"200 one", "200 two", "200 three"}
    assert answers <= set(seen) <= answers | {"closed while idle"}, seen


def test_two_stacks_cannot_have_one_host_and_path(stack: Stack, lab: Pystack, tmp_path: Path) -> None:
    stack.up(web("mine.internal"))
    other = tmp_path / "other.yml"
    other.write_text(web("mine.internal"))
    refused = lab("plan", "-f", str(other), "-p", "other", check=False)
    assert refused.returncode == 1
    assert f"{other}:" in refused.stderr
    assert f"stack {stack.name} already ({stack.file}:" in refused.stderr
    other.write_text(web("mine.internal").replace("x-ingress", "ports: ['443:8080']\n    x-ingress").replace("mine", "other"))
    assert "port 443 is that of the cluster's ingress" in lab("plan", "-f", str(other), "-p", "other", check=False).stderr


def test_a_plan_says_what_will_be_answered(stack: Stack, lab: Pystack) -> None:
    stack.up(web("plan.internal"))
    stack.write(web("plan.internal").replace("port: 8080}", "port: 8080, path: /x}"))
    steps = json.loads(lab("plan", "-f", str(stack.file), "-p", stack.name, "--json").stdout)["steps"]
    (step,) = [s for s in steps if s["kind"] == "service"]
    assert step["reason"] == "plan.internal/ is no longer answered, plan.internal/x is answered by port 8080"


@contextmanager
def pebble(lab: Pystack, folder: Path) -> Iterator[str]:
    """A real ACME server beside the nodes, for which all names are n2; the path of a program for DNS-01."""
    at = "10.99.0.254"
    certificate = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3"]
    names = ["-subj", "/CN=pebble", "-addext", f"subjectAltName=IP:{at}"]
    subprocess.run(
        [*certificate, *names, "-keyout", folder / "k.pem", "-out", folder / "c.pem"], check=True, capture_output=True
    )
    settings: dict[str, Any] = {
        "listenAddress": f"{at}:14000",
        "managementListenAddress": f"{at}:15000",
        "certificate": str(folder / "c.pem"),
        "privateKey": str(folder / "k.pem"),
        "httpPort": 80,
        "tlsPort": 443,
        "externalAccountBindingRequired": True,
        "externalAccountMACKeys": {"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"},
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
    hook = folder / "hook"
    hook.write_text(
        "#!/bin/sh\n"
        '[ "$1" = present ] && what=set-txt || what=clear-txt\n'
        f'exec curl -sSf -d "{{\\"host\\": \\"$2.\\", \\"value\\": \\"$3\\"}}" http://{at}:8055/$what\n'
    )
    hook.chmod(0o755)
    off = [w for name in ("http01", "https01", "tlsalpn01") for w in (f"-{name}", "")]
    names_of = ["pebble-challtestsrv", "-defaultIPv4", "10.99.0.2", "-defaultIPv6", "", "-dns01", f"{at}:8053", *off]
    server = ["env", "PEBBLE_VA_NOSLEEP=1", "pebble", "-config", str(folder / "pebble.json"), "-dnsserver", f"{at}:8053"]
    children = []
    for command in ([*names_of, "-management", f"{at}:8055"], server):
        inside = ["nsenter", "-t", lab.pid(), "-n", "--", *command]
        children.append(subprocess.Popen(inside, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    try:
        ask = ["curl", "-sSf", "--cacert", str(folder / "c.pem"), f"https://{at}:14000/dir"]
        eventually(lambda: _in("newOrder", lab.on("outside", *ask, check=False)), 60)
        yield str(hook)
    finally:
        for child in children:
            child.terminate()
            child.wait()


def _in(part: str, whole: str) -> None:
    assert part in whole


def serial(lab: Pystack, host: str, node: int) -> str:
    ask = (
        f"openssl s_client -connect 10.99.0.{node}:443 -servername {host} </dev/null 2>/dev/null | openssl x509 -noout -serial"
    )
    return lab.on("outside", "sh", "-c", ask, check=False)


@pytest.mark.long
def test_an_acme_server_certifies_what_any_node_answers(stack: Stack, lab: Pystack, tmp_path: Path) -> None:
    with pebble(lab, tmp_path) as hook:
        url = "https://10.99.0.254:14000"
        lab("secret", "create", "eab", "-", stdin="zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W")
        acme: tuple[str, ...] = (
            "ingress",
            "up",
            "--acme",
            f"{url}/dir",
            "--acme-ca",
            str(tmp_path / "c.pem"),
            "--eab-key-id",
            "kid-1",
        )
        acme = (*acme, "--eab-key", "eab", "--email", "ops@example.org")
        lab(*acme)
        stack.up(web("shop.example.org"))
        root = tmp_path / "pebble.pem"
        root.write_text(lab.on("outside", "curl", "-sSk", "https://10.99.0.254:15000/roots/0"))
        assert [get(lab, "shop.example.org", n, root=str(root)) for n in (1, 2, 3)] == ["one\n"] * 3
        before = serial(lab, "shop.example.org", 3)
        assert before

        refused = stack.up(web("'*.example.org'"), check=False)
        assert "a wildcard is certified by DNS-01 alone" in refused.stderr
        lab(*acme, "--dns-hook", hook)
        eventually(lambda: _in("one", get(lab, "any.example.org", 2, root=str(root))), 60)
        stack.up(web("shop.example.org"))
    lab("lab", "fault", "--name", lab.lab, "kill", "leader")
    eventually(lambda: _in("ok", lab("ingress", "ls", check=False).stdout), 60)
    assert serial(lab, "shop.example.org", 3) == before, "kept in the store, without the ACME server"


@pytest.mark.long
def test_an_acme_server_that_asks_at_443_alone(stack: Stack, lab: Pystack, tmp_path: Path) -> None:
    """TLS-ALPN-01: nothing listens at port 80, and what the proxies showed meanwhile is gone from them afterwards."""
    with pebble(lab, tmp_path):
        eab = ("--eab-key-id", "kid-1", "--eab-key", "eab-tls")
        lab("secret", "create", "eab-tls", "-", stdin="zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W")
        acme = ("ingress", "up", "--acme", "https://10.99.0.254:14000/dir", "--acme-ca", str(tmp_path / "c.pem"), *eab)
        lab(*acme, "--http-port", "8081", "--challenge", "tls-alpn-01")
        stack.up(web("alpn.example.org"))
        root = tmp_path / "pebble.pem"
        root.write_text(lab.on("outside", "curl", "-sSk", "https://10.99.0.254:15000/roots/0"))
        assert [get(lab, "alpn.example.org", n, root=str(root)) for n in (1, 2, 3)] == ["one\n"] * 3
    for node in (1, 2, 3):
        # a proxy that was made anew meanwhile has had no challenge, and no folder for it
        look = "d=/proc/$(pgrep -x caddy)/root/run/caddy/storage; test ! -d $d || find $d -type f -name '*.json'"
        left = lab.on(f"n{node}", "sh", "-c", look)
        assert left == "", "no challenge is under way"
    lab("ingress", "up", "--reset")


def test_a_proxy_that_was_killed_is_back_with_its_configuration(stack: Stack, lab: Pystack, tmp_path: Path) -> None:
    stack.up(web("back.internal"))
    root = own_root(lab, tmp_path)
    lab.on("n2", "sh", "-c", "kill -9 $(pgrep -x caddy)")
    eventually(lambda: _in("one", get(lab, "back.internal", 2, root=root)), 60)


def test_a_node_that_is_activated_again_has_its_proxy_again(stack: Stack, lab: Pystack, tmp_path: Path) -> None:
    stack.up(web("again.internal"))
    root = own_root(lab, tmp_path)
    lab("node", "drain", "n3")
    proxies = json.loads(lab("ingress", "inspect").stdout)["proxies"]
    assert {p["node"] for p in proxies} == {"n1", "n2"}
    lab("node", "activate", "n3")
    eventually(lambda: _in("one", get(lab, "again.internal", 3, root=root)), 60)


def test_without_ingress_nothing_listens_and_up_says_so(stack: Stack, lab: Pystack) -> None:
    lab("ingress", "rm")
    assert lab.on("n1", "sh", "-c", "ss -ltn | grep -c ':443 ' || true").strip() == "0"
    assert "no ingress yet" in lab("ingress", "ls", check=False).stderr
    assert "run `pystack ingress up`" in stack.up(web("late.internal")).stderr
    lab("ingress", "up")
    eventually(lambda: _in("late.internal", lab("ingress", "ls").stdout))
