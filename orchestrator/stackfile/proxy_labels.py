"""Rules of ingress that files have for other proxies: labels of Traefik and of caddy-docker-proxy, uncloud's `x-ports`.

They are read where a service has no `x-ingress`, and where no service of the file is that proxy itself. What they say beyond
the tables in docs/ingress.md is a warning. Sources: Traefik v3, "Docker routing configuration"; caddy-docker-proxy, README,
"Labels to Caddyfile conversion"; uncloud, "Publishing services", x-ports.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from orchestrator.stackfile.field_readers import Fields, ServiceContext, flag, scalar
from orchestrator.stackfile.ingress import HostNameError, header_problem, host_name, path_problem
from orchestrator.stackfile.marked_document import Path_
from orchestrator.stackfile.model import IngressRule

_PROXY_IMAGE = re.compile(r"(?:^|/)(?:traefik|caddy-docker-proxy)(?:[:@]|$)")
_ROUTER = re.compile(r"traefik\.http\.routers\.([^.]+)\.(.+)", re.IGNORECASE)
_BACKEND = re.compile(r"traefik\.http\.services\.([^.]+)\.loadbalancer\.(.+)", re.IGNORECASE)
_MIDDLEWARE = re.compile(r"traefik\.http\.middlewares\.([^.]+)\.(.+)", re.IGNORECASE)
_TERM = re.compile(r"(Host|PathPrefix)\(((?:\s*[`'\"][^`'\"]*[`'\"]\s*,?)+)\)")
_QUOTED = re.compile(r"[`'\"]([^`'\"]*)[`'\"]")
_CADDY = re.compile(r"caddy(_\d+)?(?:\.(.+))?")
_UPSTREAMS = re.compile(r"\{\{\s*upstreams(?:\s+(https?|h2c))?(?:\s+(\d+))?\s*\}\}")
_UNCLOUD = re.compile(r"(?P<host>[^:/@]+):(?P<port>\d+)(?:/(?P<kind>https?))?")


class _Labels(NamedTuple):
    """*values* are all labels of a service, *place* gives where one stands, *warn* tells of one that has no effect."""

    values: Mapping[str, str]
    place: Callable[[str], Path_]
    warn: Callable[[str, str], None]


def rules_of_labels(draft: ServiceContext, fields: Fields) -> tuple[IngressRule, ...]:
    """The rules of a service without `x-ingress`; *fields* are those of its other keys."""
    services = draft.reading.tree.value.get("services")
    bodies = services.values() if isinstance(services, dict) else ()
    if any(isinstance(b, dict) and _PROXY_IMAGE.search(scalar(b.get("image"))) for b in bodies):
        return ()
    values = dict(fields.get("labels", ())) | dict(fields.get("service_labels", ()))

    def place(label: str) -> Path_:
        for above in (("labels",), ("deploy", "labels")):
            at: Any = draft.body
            for part in above:
                at = at.get(part) if isinstance(at, dict) else None
            if isinstance(at, dict) and label in at:
                return (*draft.path, *above, label)
            if isinstance(at, list):
                for number, item in enumerate(at):
                    if scalar(item).partition("=")[0] == label:
                        return (*draft.path, *above, number)
        return draft.path

    labels = _Labels(values, place, lambda label, why: draft.reading.warn(place(label), why))
    port = _only_port(fields)
    found = [*_traefik(draft, labels, port), *_caddy(draft, labels, port), *_uncloud(draft)]
    return tuple({(r.host, r.path): r for r in found}.values())


def _only_port(fields: Fields) -> int:
    """The lowest port that the service says it has, 0 for none."""
    known = [p.target for p in fields.get("ports", ()) if p.protocol == "tcp"]
    known += [int(e.partition("/")[0]) for e in fields.get("expose", ()) if e.endswith("/tcp")]
    return min(known, default=0)


def _made(draft: ServiceContext, labels: _Labels, label: str, **fields: Any) -> IngressRule | None:
    """A rule, or None with a warning about *label* where it cannot be one."""
    try:
        fields["host"] = host_name(fields["host"])
    except HostNameError as error:
        return labels.warn(label, f"has no effect: {fields['host'][:300]!r} {error}")
    if why := path_problem(fields.get("path", "/")):
        return labels.warn(label, f"has no effect: {fields['path'][:300]!r} {why}")
    if not fields["port"]:
        return labels.warn(label, "has no effect: it does not say which port, and neither do ports: and expose:")
    fields["path"] = fields.get("path", "/").rstrip("/") or "/"
    return IngressRule(**fields, where=str(draft.reading.mark(labels.place(label))))


# --- Traefik ---------------------------------------------------------------------------------------------------


def _traefik(draft: ServiceContext, labels: _Labels, port: int) -> Iterator[IngressRule]:
    if not flag(labels.values.get("traefik.enable", "true")):
        return
    routers: dict[str, dict[str, str]] = {}
    backends: dict[str, dict[str, str]] = {}
    middlewares: dict[str, dict[str, str]] = {}
    for label, value in labels.values.items():
        for pattern, group in ((_ROUTER, routers), (_BACKEND, backends), (_MIDDLEWARE, middlewares)):
            if match := pattern.fullmatch(label):
                group.setdefault(match[1].lower(), {})[match[2].lower()] = value
                break
        else:
            if label.lower().startswith(("traefik.tcp.", "traefik.udp.", "traefik.http.")):
                labels.warn(label, "has no effect here")
    secure: list[IngressRule] = []
    plain: list[IngressRule] = []
    for name, router in routers.items():
        label = next(k for k in labels.values if k.lower() == f"traefik.http.routers.{name}.{next(iter(router))}")
        backend = backends.get(_bare(router.get("service", "")) or next(iter(backends), ""), {})
        fields: Fields = {"port": _number(backend.get("server.port", "")) or port}
        fields |= {"protocol": scheme} if (scheme := backend.get("server.scheme", "http")) in ("http", "https", "h2c") else {}
        if any(k.startswith("sticky.cookie") for k in backend):
            fields["sticky"] = "cookie"
        for word in filter(None, map(_bare, router.get("middlewares", "").split(","))):
            fields |= _middleware(labels, word, middlewares.get(word))
        https = any(k == "tls" or k.startswith("tls.") for k in router) and flag(router.get("tls", "true"))
        https = https or any(w in ("websecure", "https") for w in router.get("entrypoints", "").replace(" ", "").split(","))
        for host, path in _matches(labels, name, router.get("rule", "")):
            one = _made(draft, labels, label, host=host, path=path, tls="" if https else "off", **fields)
            if one:
                (secure if https else plain).append(one)
    taken = {(r.host, r.path) for r in secure}
    yield from (r for r in plain if (r.host, r.path) not in taken)  # the one that redirects to the other
    yield from secure


def _bare(name: str) -> str:
    """The name of a router's part without the provider that it comes from."""
    return name.strip().partition("@")[0].lower()


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text) and int(text) < 65536 else 0


def _matches(labels: _Labels, router: str, rule: str) -> Iterator[tuple[str, str]]:
    """Hosts and paths of a rule: Host and PathPrefix, joined by && or, for hosts, by ||."""
    label = next((k for k in labels.values if k.lower() == f"traefik.http.routers.{router}.rule"), "")
    if not label:
        return
    terms = [(kind, _QUOTED.findall(inner)) for kind, inner in _TERM.findall(rule)]
    hosts = [h for kind, words in terms if kind == "Host" for h in words]
    paths = [p for kind, words in terms if kind == "PathPrefix" for p in words]
    rest = re.sub(r"[()\s]|&&|\|\|", "", _TERM.sub("", rule))
    if rest or not hosts or ("||" in rule and paths and len(hosts) > 1):
        return labels.warn(label, "has no effect: only Host(…), Host(…) || Host(…), and && PathPrefix(…) are read")
    for host in hosts:
        for path in paths or ["/"]:
            yield host, path


def _middleware(labels: _Labels, name: str, parts: dict[str, str] | None) -> Fields:
    fields: Fields = {}
    for part, value in (parts or {}).items():
        kind, _, rest = part.partition(".")
        if part == "stripprefix.prefixes":
            fields["strip_path"] = True
        elif kind == "compress":
            fields["compress"] = flag(value)
        elif kind in ("ipallowlist", "ipwhitelist") and rest == "sourcerange" and (networks := _networks(value)):
            fields["allow"] = networks
        elif part == "buffering.maxrequestbodybytes":
            fields["body_limit"] = int(value) if re.fullmatch(r"[0-9]{1,15}", value) else 0
        elif rest.startswith(("customrequestheaders.", "customresponseheaders.")) and not header_problem(
            rest.partition(".")[2], value
        ):
            side = "request_headers" if "request" in rest else "response_headers"
            fields[side] = (*fields.get(side, ()), (rest.partition(".")[2], value))
        elif kind != "redirectscheme":  # to https: that is what happens anyhow
            label = next(k for k in labels.values if k.lower() == f"traefik.http.middlewares.{name}.{part}")
            labels.warn(label, "has no effect here")
    return fields


def _networks(text: str) -> tuple[str, ...]:
    """The networks of a list with commas; none if one of them is none."""
    try:
        return tuple(str(ipaddress.ip_network(w.strip())) for w in text.split(","))
    except ValueError:
        return ()


# --- caddy-docker-proxy ----------------------------------------------------------------------------------------


def _caddy(draft: ServiceContext, labels: _Labels, port: int) -> Iterator[IngressRule]:
    sites: dict[str, dict[str, str]] = {}
    for label, value in labels.values.items():
        if match := _CADDY.fullmatch(label):
            sites.setdefault(match[1] or "", {})[match[2] or ""] = value
    for suffix, site in sites.items():
        label = f"caddy{suffix}"
        if "" not in site:
            continue
        fields = _directives(labels, label, site, port)
        for host in re.split(r"[\s,]+", site[""].strip()):
            plain = host.startswith("http://")
            bare = re.sub(r"^https?://", "", host)
            one = _made(draft, labels, label, **{**fields, "host": bare, **({"tls": "off"} if plain else {})})
            if one:
                yield one


def _directives(labels: _Labels, label: str, site: dict[str, str], port: int) -> Fields:
    """What the directives of a *site* say, those labels that begin with *label*."""
    fields: Fields = {"port": port or 80}
    for word, value in site.items():
        if word.endswith("reverse_proxy") and (match := _UPSTREAMS.fullmatch(value.strip())):
            fields["port"] = int(match[2] or fields["port"])
            fields["protocol"] = match[1] or "http"
        elif word == "handle_path":
            fields |= {"path": value.strip().removesuffix("*").rstrip("/") or "/", "strip_path": True}
        elif word == "tls" and value == "internal":
            fields["tls"] = "internal"
        elif word == "encode":
            fields["compress"] = True
        elif word:
            labels.warn(f"{label}.{word}", "has no effect here")
    return fields


# --- uncloud -----------------------------------------------------------------------------------------------------


def _uncloud(draft: ServiceContext) -> Iterator[IngressRule]:
    for number, item in enumerate(draft.body.get("x-ports") or () if isinstance(draft.body.get("x-ports"), list) else ()):
        at = (*draft.path, "x-ports", number)
        match = _UNCLOUD.fullmatch(scalar(item))
        host = ""
        with contextlib.suppress(HostNameError):
            host = host_name(match["host"]) if match else ""
        if not match or not host or not 0 < int(match["port"]) < 65536:
            draft.reading.warn(
                at, "has no effect: only HOST:PORT/http and HOST:PORT/https are read; for others there is ports:"
            )
            continue
        yield IngressRule(
            host=host,
            port=int(match["port"]),
            tls="off" if match["kind"] == "http" else "",
            where=str(draft.reading.mark(at)),
        )
    if "x-caddy" in draft.body:
        draft.reading.warn((*draft.path, "x-caddy"), "has no effect: write x-ingress")
