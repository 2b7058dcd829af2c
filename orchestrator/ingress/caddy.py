"""The configuration of a Caddy, as the JSON that its admin API loads. Pure.

Everything automatic in Caddy is off: certificates come from the control plane, so that any proxy can be lost. Text of a stack
file is kept from being read as Caddy's placeholders. Source: https://caddyserver.com/docs/json/ (2.6).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from orchestrator.ingress import haproxy
from orchestrator.ingress.model import NOBODY, Challenge, IngressSettings
from orchestrator.ingress.routes import Site

Json = dict[str, Any]
Seen = Literal["nothing", "requests", "hosts"]
FOLDER = "/run/caddy"
"""In memory of the container."""
ADMIN_SOCKET = f"{FOLDER}/admin.sock"
STORAGE = "storage"
"""The directory of FOLDER in which Caddy looks for challenges of TLS-ALPN-01 that another Caddy of a cluster began."""
ISSUERS_FOLDER = "acme/acme-v02.api.letsencrypt.org-directory/challenge_tokens"
"""Its place there, after the ACME server that Caddy would ask by itself. It need not be the one that asks."""
CHALLENGE_PATH = "/.well-known/acme-challenge/"
GRACE = "5m"
"""How long requests that are under way may take after the configuration has changed."""
TRY_FOR = "5s"
"""How long a request looks for a task that can be connected to."""
MORE_TRIES = 2
LARGEST_KEPT, KEPT_LENGTH = 60_000, "^[1-9][0-9]{0,3}$|^[1-5][0-9]{4}$"
"""The lengths, in bytes, of bodies that are kept for another try."""
UNCONNECTED = "{http.error.message}.startsWith('dial ') || {http.error.message} == 'no upstreams available'"
"""No task got anything of the request: none took a connection, or each has refused one in the last two seconds."""
STREAM_GRACE_SINCE = (2, 7)
"""Since this version, WebSockets outlive a change of the configuration."""
TOO_LARGE: Json = {
    "match": [{"expression": "{http.error.message}.contains('request body too large')"}],
    "handle": [{"handler": "static_response", "status_code": 413, "body": "413: the request is too large\n"}],
}
"""Caddy 2.6 blames the service for a body beyond the limit: 502."""
HOLD_FOR_S = 60
"""How long a request waits for the first task of a service that has none."""
HOLD_SOCKETS = f"{FOLDER}/hold-"
HELD_FOR, HELD_PROTO, HELD_SINCE = "X-Pystack-Held-For", "X-Pystack-Held-Proto", "X-Pystack-Held-Since"
"""What is known of the client on the way of a held request through the proxy itself."""
QUIET: Json = {"level": "WARN"}
FORWARDING = "http.handlers.reverse_proxy"
OF_REQUEST = ("remote_ip", "remote_port", "proto", "method", "uri", "headers", "tls")
"""What Caddy says of a request beside its host."""
EMPTY: Json = {"admin": {"listen": f"unix/{ADMIN_SOCKET}", "origins": ["localhost"], "config": {"persist": False}}}
"""What a proxy starts with: nothing but its admin API, which is a socket of its own container."""


def configuration(
    sites: Sequence[Site],
    certificates: Iterable[tuple[str, str]],
    challenges: Iterable[Challenge],
    settings: IngressSettings,
    seen: Seen = "nothing",
) -> Json:
    """What a proxy must do. *certificates* are chains and keys as PEM, *challenges* what is to be answered to ACME servers, of
    which `challenge_files` has those of TLS-ALPN-01. Unless *seen* is nothing, it says a line on its standard output for each
    request that it forwarded; `requests.py` reads them."""
    sites = [s for s in sites if not s.rule.tcp]  # those are HAProxy's
    secure = [s for s in sites if s.tls != "off"]
    plain = [_redirect(s, settings) if s.tls != "off" and s.rule.redirect else _answer(s, settings) for s in sites]
    servers: Json = {
        "http": _server(settings.http_port, [*_challenge_routes(challenges), *plain]),
        "https": _server(settings.https_port, [_answer(s, settings) for s in secure]) | {"tls_connection_policies": [{}]},
    }
    servers["http"]["protocols"] = ["h1", "h2c"]
    servers |= {f"held{n}": _held(s, settings) for n, s in enumerate(s for s in sites if s.idle)}
    pairs = [{"certificate": chain, "key": key} for chain, key in certificates]
    if not secure:  # Caddy has no TLS without any certificate
        del servers["https"]
    return {
        **EMPTY,
        "storage": {"module": "file_system", "root": f"{FOLDER}/{STORAGE}"},
        "logging": {
            "logs": {"default": QUIET}
            if seen == "nothing"
            else {"default": QUIET | {"exclude": [FORWARDING]}, "forwarded": _lines(seen)}
        },
        "apps": {
            "http": {"grace_period": GRACE, "servers": servers},
            "tls": {"certificates": {"load_pem": pairs} if pairs else {}},
        },
    }


def _lines(seen: Seen) -> Json:
    """Lines such as {"msg":"upstream roundtrip","upstream":"10.0.0.5:80","duration":0.0013,"status":200}; with hosts, also
    "request":{"host":"a.org"}."""
    gone = ("request",) if seen == "requests" else tuple(f"request>{part}" for part in OF_REQUEST)
    return {
        "level": "DEBUG",
        "include": [FORWARDING],
        "writer": {"output": "stdout"},
        "encoder": {
            "format": "filter",
            "wrap": {"format": "json", "time_key": "", "level_key": "", "name_key": ""},
            "fields": {field: {"filter": "delete"} for field in (*gone, "headers")},
        },
    }


def _server(port: int, routes: list[Json]) -> Json:
    last = {"handle": [{"handler": "static_response", "status_code": 404, "body": "404: no such host or path here\n"}]}
    return {
        "listen": [f":{port}"],
        "automatic_https": {"disable": True},
        "read_header_timeout": "15s",
        "max_header_bytes": 64 << 10,
        "routes": [*routes, last],
        "errors": {"routes": [TOO_LARGE]},
    }


def waiting_dial(site: Site) -> str:
    """Where requests for *site* try to go while it has no task: nobody ever listens there."""
    return f"unix/{HOLD_SOCKETS}{_key(site)}{NOBODY}"


def _hold_dial(site: Site) -> str:
    return f"unix/{HOLD_SOCKETS}{_key(site)}.sock"


def _key(site: Site) -> str:
    return hashlib.sha256(f"{site.rule.host}{site.rule.path}".encode()).hexdigest()[:12]


def _to_itself(site: Site, dial: str, try_for: str = "") -> Json:
    """Forward to a socket of the proxy itself, with the client's request as it is."""
    transport: Json = {"protocol": "http", "dial_timeout": "2s"}
    if site.rule.protocol == "h2c":
        transport["versions"] = ["h2c", "2"]
    retry = {"load_balancing": {"try_duration": try_for, "try_interval": "200ms"}} if try_for else {}
    return {"handler": "reverse_proxy", "upstreams": [{"dial": dial}], "transport": transport, **retry}


def _hold(site: Site) -> list[Json]:
    """Have the request wait in the server that `_held` describes. What was sent there may take as long as it likes, with any
    method and body, and outlives changes of the configuration."""
    known = {HELD_FOR: ["{http.request.remote.host}"], HELD_PROTO: ["{http.request.scheme}"], HELD_SINCE: ["{time.now.unix}"]}
    return [{"handler": "headers", "request": {"set": known}}, _to_itself(site, _hold_dial(site))]


def _held(site: Site, settings: IngressSettings) -> Json:
    """The server on whose socket requests for *site* wait. With tasks it sends them on, as coming from their clients. Without,
    they try to connect to nobody; a new configuration ends that (Caddy 2.6 gives up such attempts with the old one), and they
    come to the same socket again, which is the new configuration's then."""
    server: Json = {"listen": [_hold_dial(site)], "automatic_https": {"disable": True}, "protocols": ["h1", "h2c"]}
    if site.upstreams:
        proxy = _proxy(site, settings)
        changes = proxy.setdefault("headers", {}).setdefault("request", {})
        known = {"X-Forwarded-For": [f"{{http.request.header.{HELD_FOR}}}"]}
        known["X-Forwarded-Proto"] = [f"{{http.request.header.{HELD_PROTO}}}"]
        changes["set"] = {**known, **changes.get("set", {})}
        changes["delete"] = [*changes.get("delete", ()), HELD_FOR, HELD_PROTO, HELD_SINCE]
        return server | {"routes": [{"handle": [proxy]}]}
    late = f"int({{time.now.unix}}) - int({{http.request.header.{HELD_SINCE}}}) >= {HOLD_FOR_S}"
    in_vain = _unavailable(f"no task came up within {HOLD_FOR_S} s", "10")
    errors = [
        {"match": [{"expression": late}], "handle": [in_vain], "terminal": True},
        {"handle": [_to_itself(site, _hold_dial(site))]},
    ]
    wait = _to_itself(site, waiting_dial(site), f"{HOLD_FOR_S}s") | {"rewrite": {"method": "GET"}}
    return server | {"routes": [{"handle": [wait]}], "errors": {"routes": errors}}


def _challenge_routes(challenges: Iterable[Challenge]) -> list[Json]:
    return [
        {
            "match": [{"path": [literal(CHALLENGE_PATH + one.token)]}],
            "handle": [
                {"handler": "static_response", "body": literal(one.answer), "headers": {"Content-Type": ["text/plain"]}}
            ],
            "terminal": True,
        }
        for one in sorted(challenges)
        if one.type == "http-01"
    ]


def challenge_files(challenges: Iterable[Challenge]) -> dict[str, bytes]:
    """Files in FOLDER by which Caddy makes the certificates with acmeIdentifier that it answers ACME servers with, should they
    ask for the protocol acme-tls/1; no configuration says so. Source: RFC 8737; certmagic, solvers.go (distributedSolver)."""
    return {
        f"{STORAGE}/{ISSUERS_FOLDER}/{one.host}.json": json.dumps(
            {
                "type": one.type,
                "token": one.token,
                "keyAuthorization": one.answer,
                "identifier": {"type": "dns", "value": one.host},
            }
        ).encode()
        for one in challenges
        if one.type == "tls-alpn-01"
    }


def _match(site: Site) -> list[Json]:
    match: Json = {"host": [site.rule.host]}
    if site.rule.path != "/":
        match["path"] = [site.rule.path, f"{site.rule.path}/*"]
    return [match]


def _redirect(site: Site, settings: IngressSettings) -> Json:
    port = "" if settings.https_port == 443 else f":{settings.https_port}"
    target = f"https://{{http.request.host}}{port}{{http.request.uri}}"
    answer = {"handler": "static_response", "status_code": 308, "headers": {"Location": [target]}}
    return {"match": _match(site), "handle": [answer], "terminal": True}


def _answer(site: Site, settings: IngressSettings) -> Json:
    rule = site.rule
    handlers: list[Json] = []
    if rule.allow:
        refuse = {"handler": "static_response", "status_code": 403, "body": "403: not from this address\n"}
        outside = [{"not": [{"remote_ip": {"ranges": list(rule.allow)}}]}]
        handlers.append({"handler": "subroute", "routes": [{"match": outside, "handle": [refuse], "terminal": True}]})
    if rule.rate:
        handlers.append(_limit(site))
    if rule.basic_auth:
        handlers.append(_authentication(site))
    if rule.maintenance:
        return _route(site, [*handlers, _unavailable(rule.maintenance, "60")])
    if rule.body_limit:
        handlers.append({"handler": "request_body", "max_size": rule.body_limit})
    if rule.compress:
        handlers.append({"handler": "encode", "encodings": {"zstd": {}, "gzip": {}}, "prefer": ["zstd", "gzip"]})
    if rule.response_headers:
        handlers.append({"handler": "headers", "response": _header_changes(rule.response_headers) | {"deferred": True}})
    if rule.strip_path and rule.path != "/":
        handlers.append({"handler": "rewrite", "strip_path_prefix": literal(rule.path)})
    if site.idle and not site.upstreams:
        return _route(site, [*handlers, *_hold(site)])
    if not site.upstreams:
        return _route(site, [*handlers, _unavailable("no task of the service is ready", "1")])
    return _route(site, [*handlers, _persistent(_proxy(site, settings), keeps=not 0 < rule.body_limit < LARGEST_KEPT)])


def _persistent(proxy: Json, *, keeps: bool) -> Json:
    """*proxy*, with what Caddy 2.6 lacks for trying another task where it could not connect to the first: a body that is sent
    again (it closes the body with the first try, so small ones are kept; not those of unknown length, which somebody may write
    by and by), and tries that go on when the configuration changes (it bounds them by its life; modules/caddyhttp/
    reverseproxy, tryAgain)."""
    if not keeps:  # what is larger than the rule allows has to be an error of the request
        return _subroute([{"handle": [proxy]}], _again(proxy, MORE_TRIES))
    keeping = proxy | {"buffer_requests": True}
    first = [
        {"match": [{"header_regexp": {"Content-Length": {"pattern": KEPT_LENGTH}}}], "handle": [keeping], "terminal": True}
    ]
    return _subroute([*first, {"handle": [proxy]}], _again(proxy, MORE_TRIES))


def _again(proxy: Json, tries: int) -> Json:
    """One more try, and *tries* in all. They prefer tasks at which few requests wait: at one that is gone they do until it is
    given up. A task that refused a connection a moment ago is tried all the same: it may be the only one."""
    again = {key: value for key, value in proxy.items() if key != "health_checks"} | {
        "upstreams": [{"dial": dial} for dial in dict.fromkeys(u["dial"] for u in proxy["upstreams"])],
        "load_balancing": {"selection_policy": {"policy": "least_conn"}},
    }
    return _subroute([{"handle": [again]}], _again(proxy, tries - 1)) if tries > 1 else again


def _subroute(routes: list[Json], unconnected: Json) -> Json:
    """*routes*, and *unconnected* where they could not connect to a task."""
    as_it_was = {"handler": "error", "status_code": "{http.error.status_code}"}
    errors = [
        {"match": [{"expression": UNCONNECTED}], "handle": [unconnected], "terminal": True},
        TOO_LARGE | {"terminal": True},
        {"handle": [as_it_was]},
    ]
    return {"handler": "subroute", "routes": routes, "errors": {"routes": errors}}


def _limit(site: Site) -> Json:
    """Ask HAProxy whether the client may: it answers 204 and the request goes on, or 429 and that is the answer."""
    return {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": f"unix/{haproxy.LIMITS_SOCKET}"}],
        "rewrite": {"method": "GET", "uri": f"/{haproxy.name_of(site)}"},
        "headers": {
            "request": {"delete": ["Authorization", "Cookie"], "set": {haproxy.CLIENT_HEADER: ["{http.request.remote.host}"]}}
        },
        "load_balancing": {"try_duration": TRY_FOR, "try_interval": "50ms"},
        "handle_response": [{"match": {"status_code": [204]}, "routes": [{"handle": [{"handler": "vars"}]}]}],
    }


def _route(site: Site, handlers: list[Json]) -> Json:
    return {"match": _match(site), "handle": handlers, "terminal": True}


def _unavailable(text: str, retry_after: str) -> Json:
    return {
        "handler": "static_response",
        "status_code": 503,
        "body": literal(f"503: {text}\n"),
        "headers": {"Retry-After": [retry_after], "Content-Type": ["text/plain; charset=utf-8"]},
    }


def _proxy(site: Site, settings: IngressSettings) -> Json:
    rule = site.rule
    transport: Json = {"protocol": "http", "dial_timeout": "2s"}
    if rule.protocol == "h2c":
        transport["versions"] = ["h2c", "2"]
    elif rule.protocol == "https":  # the plan says which task has the address, not a certificate of the container's
        transport["tls"] = {"insecure_skip_verify": True}
    policy: Json = {"policy": "random"}
    if rule.sticky == "cookie":
        name = "pystack_" + hashlib.sha256(f"{rule.host}{rule.path}".encode()).hexdigest()[:12]
        policy = {"policy": "cookie", "name": name}
    elif rule.sticky == "ip":
        policy = {"policy": "ip_hash"}
    proxy: Json = {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": u.dial} for u in site.upstreams for _ in range(u.shares)],
        "transport": transport,
        "load_balancing": {"selection_policy": policy, "try_duration": TRY_FOR, "try_interval": "50ms"},
        "health_checks": {"passive": {"fail_duration": "2s", "max_fails": 1}},
    }
    if rule.request_headers:
        proxy["headers"] = {"request": _header_changes(rule.request_headers)}
    if tuple(int(p) for p in settings.version.split(".")[:2] if p.isdecimal()) >= STREAM_GRACE_SINCE:
        proxy["stream_close_delay"] = GRACE
    return proxy


def _authentication(site: Site) -> Json:
    accounts = [{"username": literal(n), "password": base64.b64encode(h.encode()).decode()} for n, h in site.users]
    basic = {"hash": {"algorithm": "bcrypt"}, "accounts": accounts, "hash_cache": {}, "realm": "restricted"}
    return {"handler": "authentication", "providers": {"http_basic": basic}}


def _header_changes(pairs: Sequence[tuple[str, str]]) -> Json:
    put = {name: [literal(value)] for name, value in pairs if value}
    gone = [name for name, value in pairs if not value]
    return {**({"set": put} if put else {}), **({"delete": gone} if gone else {})}


def literal(text: str) -> str:
    """*text* for a place where Caddy would put in what a placeholder such as {env.HOME} stands for."""
    return text.replace("{", "\\{")
