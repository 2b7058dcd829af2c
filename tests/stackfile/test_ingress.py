"""`x-ingress`, and the labels of other proxies: what is read, and what is told with its place."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.authority import issue, make_root
from orchestrator.stackfile.certificate_text import CertificateTextError, covers, read_pair
from orchestrator.stackfile.ingress import HostNameError, host_name, path_problem
from orchestrator.stackfile.load import Loaded, Options, load
from orchestrator.stackfile.model import IngressRule
from orchestrator.stackfile.problem import StackFileError


def read(folder: Path, text: str) -> Loaded:
    path = folder / "stack.yml"
    path.write_text(text)
    return load(Options(files=(str(path),)), {})


def rules(folder: Path, service: str) -> tuple[IngressRule, ...]:
    return read(folder, f"services:\n  web:\n    image: i\n{service}").stack.services[0].ingress


def problems(folder: Path, entry: str, more: str = "") -> str:
    with pytest.raises(StackFileError) as error:
        read(folder, f"services:\n  web:\n    image: i\n    expose: [80]\n    x-ingress:\n      - {entry}\n{more}")
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Shop.Example.ORG", "shop.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.a.org", "*.a.org"),
        ("a.org.", "a.org"),
    ],
)
def test_names_of_hosts(text: str, name: str) -> None:
    assert host_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a..b",
        "a_b.org",
        "-a.org",
        "10.0.0.1",
        "[::1]",
        "a.*.org",
        "*",
        "a/b",
        "a:80",
        "{env.X}",
        "a b",
        "a" * 64,
        "1.2",
    ],
)
def test_what_is_no_name_of_a_host(text: str) -> None:
    with pytest.raises(HostNameError):
        host_name(text)


@pytest.mark.parametrize("text", ["", "a", "/a//b", "/a/../b", "/.", "/a%2f", "/a?b", "/a#b", "/{x}", "/a b", "/*"])
def test_what_is_no_path(text: str) -> None:
    assert path_problem(text)


def test_every_mistake_of_a_rule_has_its_place(tmp_path: Path) -> None:
    told = problems(
        tmp_path,
        '{host: a_b, path: "/../x", port: 99999, weight: -1, allow: [10.0.0.1/8], tls: manual, '
        'headers: {request: {Host: x, "a b": y}}, basic_auth: nobody}',
    )
    for place in ("host", "path", "port", "weight", "allow[0]", "headers.request.Host", "headers.request.a b", "basic_auth"):
        assert f"services.web.x-ingress[0].{place}: " in told, place
    assert "tls: manual needs secret" in told
    assert all(f"{tmp_path}/stack.yml:6:" in line for line in told.splitlines() if "x-ingress" in line)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("sni: db.example.org", "the name is called host"),
        ("listen: 80", "called tcp or udp"),
        ("rate_limit: fast", "not a rate"),
    ],
)
def test_keys_that_people_look_for_are_refused_with_what_there_is(tmp_path: Path, key: str, words: str) -> None:
    told = problems(tmp_path, f"{{host: a.org, port: 80, {key}}}")
    assert words in told
    assert f"services.web.x-ingress[0].{key.split(':')[0]}: " in told
    assert f"{tmp_path}/stack.yml:6:" in told


def test_a_port_that_the_service_does_not_have(tmp_path: Path) -> None:
    assert "services.web.x-ingress[0].port: the service has no port 81\n    → ports: and expose: have 80" in problems(
        tmp_path, "{host: a.org, port: 81}"
    )


def test_rules_after_one_with_a_mistake_keep_their_places(tmp_path: Path) -> None:
    (tmp_path / "pem").write_text("none")
    told = problems(
        tmp_path,
        "{host: a_b, port: 80}\n      - {host: a.org, port: 80}\n      - {host: a.org, port: 81}\n"
        "      - {host: b.org, port: 80, tls: manual, secret: pem}\nsecrets:\n  pem: {file: ./pem}",
    )
    assert "stack.yml:8:9: services.web.x-ingress[2]: a.org/ is x-ingress[1] already" in told
    assert "services.web.x-ingress[2].port: the service has no port 81" in told
    assert "services.web.x-ingress[3].secret: " in told


def test_connections_by_their_name_and_rates(tmp_path: Path) -> None:
    found = rules(
        tmp_path,
        "    x-ingress:\n      - {host: DB.a.org, tcp: 5432, port: 5433, weight: 2, allow: [10.0.0.0/8]}\n"
        "      - {host: db.a.org, port: 80, rate_limit: 100/m}\n"
        "      - {host: db.a.org, path: /x, port: 80, rate_limit: 7/h}\n",
    )
    assert [(r.place, r.tcp, r.port, r.rate, r.rate_s) for r in found] == [
        ("db.a.org:5432", 5432, 5433, 0, 1),
        ("db.a.org/", 0, 80, 100, 60),
        ("db.a.org/x", 0, 80, 7, 3600),
    ]
    assert (found[0].weight, found[0].allow) == (2, ("10.0.0.0/8",))


def test_ports_without_a_host_are_published(tmp_path: Path) -> None:
    text = "services:\n  web:\n    image: i\n    ports: ['5432:5432', '81:80']\n    x-ingress:\n"
    text += "      - {tcp: 5432, port: 5432}\n      - {udp: 53, tcp: 54, port: 5353}\n      - {host: a.org, port: 99}\n"
    with pytest.raises(StackFileError) as error:
        read(tmp_path, text)
    assert "x-ingress[2].port: the service has no port 99" in str(error.value)
    (service,) = read(tmp_path, text.replace("99", "5353")).stack.services
    assert [(p.published, p.target, p.protocol, p.mode) for p in service.container.ports] == [
        (5432, 5432, "tcp", "ingress"),
        (81, 80, "tcp", "ingress"),
        (54, 5353, "tcp", "ingress"),
        (53, 5353, "udp", "ingress"),
    ]
    assert [r.host for r in service.ingress] == ["a.org"]


@pytest.mark.parametrize(
    ("entry", "place", "words"),
    [
        ("{port: 80}", "", "needs host, or tcp or udp"),
        ("{tcp: 5432, port: 80, path: /x}", ".path", "all that comes to a port of the nodes is passed on"),
        ("{udp: 53, port: 80, rate_limit: 1/s}", ".rate_limit", "all that comes to a port"),
        ("{host: a.org, tcp: 5432, port: 80, tls: internal}", ".tls", "a connection with tcp is passed on as it is"),
        ("{host: a.org, tcp: 5432, port: 80, rate_limit: 1/s}", ".rate_limit", "is for http"),
        ("{host: a.org, udp: 53, port: 80}", ".udp", "UDP names no host"),
        ("{host: a.org, tcp: 70000, port: 80}", ".tcp", "65535"),
        ("{tcp: 70000, port: 80}", ".tcp", "65535"),
        ("{host: a.org, port: 80, rate_limit: 0/s}", ".rate_limit", "write 100/s, 100/m or 100/h"),
        ("{host: a.org, port: 80, rate_limit: 99999999/s}", ".rate_limit", "not a rate"),
    ],
)
def test_what_cannot_be_said_together(tmp_path: Path, entry: str, place: str, words: str) -> None:
    told = problems(tmp_path, entry)
    assert words in told
    assert f"services.web.x-ingress[0]{place}: " in told


def test_one_name_at_one_port_twice(tmp_path: Path) -> None:
    one = "{host: a.org, tcp: 5432, port: 80}"
    assert "a.org:5432 is x-ingress[1] already" in problems(tmp_path, "{tcp: 9, port: 80}\n      - " + one + "\n      - " + one)


def test_one_host_and_path_twice(tmp_path: Path) -> None:
    assert "a.org/ is x-ingress[0] already" in problems(tmp_path, "{host: a.org, port: 80}\n      - {host: A.org, port: 80}")


def test_a_certificate_must_fit(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    root = make_root("r", now)
    good, other = issue(root, "a.org", now), issue(root, "a.org", now)
    secret = "secrets: {pem: {file: ./pem}}"
    entry = "{host: a.org, port: 80, tls: manual, secret: pem}"
    for content, why in (
        (b"hello", "there is no certificate in it"),
        (good.partition(b"-----BEGIN PRIVATE")[0], "there is no private key in it"),
        (
            good.partition(b"-----BEGIN PRIVATE")[0] + b"-----BEGIN PRIVATE" + other.partition(b"-----BEGIN PRIVATE")[2],
            "not that of",
        ),
        (issue(root, "b.org", now), "the certificate is for b.org, not for a.org"),
        (issue(root, "a.org", now - datetime.timedelta(days=40)), "the certificate ended on"),
    ):
        (tmp_path / "pem").write_bytes(content)
        told = problems(tmp_path, entry, secret)
        assert "x-ingress[0].secret: secret 'pem': " in told
        assert why in told
    (tmp_path / "pem").write_bytes(good)
    stack = read(tmp_path, f"services:\n  web:\n    image: i\n    x-ingress: [{entry}]\n{secret}").stack
    assert stack.contents[0].content == good


def test_a_wildcard_stands_for_one_label() -> None:
    assert covers("*.a.org", "b.a.org")
    assert covers("*.a.org", "*.a.org")
    assert not any(covers("*.a.org", h) for h in ("a.org", "c.b.a.org", "*.b.a.org"))
    with pytest.raises(CertificateTextError):
        read_pair(b"")


def test_users_are_lines_of_htpasswd(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("ann:secret\n")
    told = problems(tmp_path, "{host: a.org, port: 80, basic_auth: users}", "secrets: {users: {file: ./users}}")
    assert "x-ingress[0].basic_auth: line 1 of secret 'users' is not USER:$2y$…" in told


TRAEFIK = """
    expose: [3000]
    labels:
      - traefik.enable=true
      - traefik.http.routers.plain.rule=Host(`a.org`)
      - traefik.http.routers.plain.entrypoints=web
      - traefik.http.routers.plain.middlewares=up
      - traefik.http.middlewares.up.redirectscheme.scheme=https
      - traefik.http.routers.app.rule=(Host(`a.org`) || Host(`b.org`))
      - traefik.http.routers.app.tls.certresolver=le
      - traefik.http.routers.app.middlewares=cut@docker,lists
      - traefik.http.middlewares.cut.stripprefix.prefixes=/x
      - traefik.http.middlewares.lists.ipallowlist.sourcerange=10.0.0.0/8, 192.0.2.1
      - traefik.http.services.app.loadbalancer.server.port=8080
"""


def test_labels_of_traefik(tmp_path: Path) -> None:
    found = {r.host: r for r in rules(tmp_path, TRAEFIK)}
    assert set(found) == {"a.org", "b.org"}, "the router that redirects is not another one"
    one = found["a.org"]
    assert (one.port, one.tls, one.strip_path, one.allow) == (8080, "", True, ("10.0.0.0/8", "192.0.2.1/32"))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("{caddy: a.org, caddy.reverse_proxy: '{{upstreams 8080}}', caddy.tls: internal}", ("a.org", "/", 8080, "internal")),
        (
            "{caddy: 'http://a.org', caddy.handle_path: /api/*, caddy.reverse_proxy: '{{upstreams}}'}",
            ("a.org", "/api", 3000, "off"),
        ),
        ("{caddy_1: a.org, caddy_1.reverse_proxy: '{{upstreams}}'}", ("a.org", "/", 3000, "")),
    ],
)
def test_labels_of_caddy(tmp_path: Path, labels: str, expected: tuple[Any, ...]) -> None:
    (one,) = rules(tmp_path, f"    expose: [3000]\n    labels: {labels}\n")
    assert (one.host, one.path, one.port, one.tls) == expected


def test_ports_of_uncloud(tmp_path: Path) -> None:
    found = rules(tmp_path, "    x-ports: ['a.org:80/https', 'b.org:81/http', '80:80/tcp@host']\n")
    assert [(r.host, r.port, r.tls) for r in found] == [("a.org", 80, ""), ("b.org", 81, "off")]


def test_what_has_no_effect_is_a_warning_with_its_line(tmp_path: Path) -> None:
    labels = (
        "    labels:\n      traefik.http.routers.a.rule: HostRegexp(`a`)\n      traefik.tcp.routers.b.rule: HostSNI(`b`)\n"
        "      caddy: c.org\n      caddy.import: x\n    x-caddy: respond hello\n"
    )
    loaded = read(tmp_path, f"services:\n  web:\n    image: i\n{labels}")
    told = [str(w) for w in loaded.warnings]
    for line, label in (
        (5, "traefik.http.routers.a.rule"),
        (6, "traefik.tcp.routers.b.rule"),
        (8, "caddy.import"),
        (9, "x-caddy"),
    ):
        assert any(f"stack.yml:{line}:" in t and label in t for t in told), (line, told)


def test_labels_are_left_to_the_proxy_that_is_in_the_file(tmp_path: Path) -> None:
    text = f"services:\n  web:\n    image: i\n{TRAEFIK}\n  proxy: {{image: 'docker.io/library/traefik:v3'}}\n"
    assert read(tmp_path, text).stack.services[0].ingress == ()
