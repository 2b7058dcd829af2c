"""`x-ingress:` of a service: hosts and paths at which the cluster's ingress answers for it.

Source: RFC 1123 §2.1 and RFC 1035 §2.3.4 (host names), RFC 5890 (names that are not ASCII), RFC 3986 §3.3 (paths), RFC 9110
§5.1 and §5.5 (headers).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from agent.contract.container import Port
from orchestrator.stackfile.field_readers import Fields, ServiceContext, flag, integer, scalar, size
from orchestrator.stackfile.load_context import LoadContext
from orchestrator.stackfile.marked_document import Path_
from orchestrator.stackfile.model import IngressRule, Service, StackContent

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PATH = r"/[A-Za-z0-9._~!$&'()+,;=:@/-]*"
_HEADER = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_BCRYPT_LINE = r"[^:\s]+:\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}"
_RATE = r"([1-9]\d{0,6})/([smh])"
_SECONDS = {"s": 1, "m": 60, "h": 3600}
BY_NAME, BY_PORT = ("host", "tcp", "port", "weight", "allow"), ("tcp", "udp", "port")
"""The keys of a rule for TLS connections by their name, and of one for all that comes to a port."""
LONGEST_HOST = 253
LARGEST_WEIGHT = 1000
HOP_BY_HOP = frozenset(
    {"connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Headers that frame a message or choose its receiver: a stack file does not set them. Source: RFC 9110 §7.6.1, RFC 9112."""


class HostNameError(ValueError):
    """A text that is not a host name; the message says why."""


def host_name(text: str) -> str:
    """*text* in lower case and in ASCII. Raises HostNameError."""
    bare = text.removeprefix("*.").rstrip(".")
    try:
        ipaddress.ip_address(bare.strip("[]"))
    except ValueError:
        pass
    else:
        raise HostNameError("is an address, and certificates are for names")
    try:
        bare = bare.lower() if bare.isascii() else bare.encode("idna").decode()
    except UnicodeError:
        raise HostNameError("is not a host name") from None
    labels = bare.split(".")
    if "*" in bare:
        raise HostNameError("has its * in another place than `*.` in front")
    if len(bare) > LONGEST_HOST or not all(re.fullmatch(_LABEL, label) for label in labels) or labels[-1].isdecimal():
        raise HostNameError("is not a host name")
    return f"*.{bare}" if text.startswith("*.") else bare


def path_problem(text: str) -> str:
    """Why *text* is not a path of a rule, "" if it is one."""
    if not re.fullmatch(_PATH, text):
        return "is not a path"
    if "//" in text or any(part in (".", "..") for part in text.split("/")):
        return "has an empty segment, . or .., which clients and servers read in different ways"
    return ""


def ingress(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.x-ingress. Rules for a port of the nodes, without a host, are ports that the service publishes."""
    out, published = [], []
    for number, item in enumerate(draft.reading.sequence(value, path)):
        at = (*path, number)
        before = len(draft.reading.problems)
        body = draft.reading.mapping(item, at)
        plain = not body.get("host") and bool(body.keys() & {"tcp", "udp"})
        fields = {} if plain else _rule(draft, body, at)
        ports = _ports(draft, body, at) if plain else []
        if len(draft.reading.problems) != before:
            continue
        if plain:
            published += ports
        else:
            out.append(IngressRule(**fields, where=str(draft.reading.mark(at))))
    return {"ingress": tuple(out), "ingress_ports": tuple(published)}


def rule_numbers(reading: LoadContext, service: str) -> dict[str, int]:
    """Which entry of `x-ingress` of *service* a rule was read of, by its *where*: those with mistakes became none."""
    services = reading.mapping(reading.tree.value.get("services"), ("services",))
    body = services.get(service)
    entries = body.get("x-ingress") if isinstance(body, dict) else None
    return {
        str(reading.mark(("services", service, "x-ingress", n))): n
        for n in range(len(entries) if isinstance(entries, list) else 0)
    }


def _ports(draft: ServiceContext, body: dict[str, Any], at: Path_) -> list[Port]:
    """What a rule without a host says: the kernel's own data path answers at each node, as for `ports:`."""
    for key in body.keys() - set(BY_PORT):
        draft.problem(
            (*at, key), "is for requests: all that comes to a port of the nodes is passed on", "add host, or remove it"
        )
    read = integer("port", 1, 65535)
    target = read(draft, body["port"], (*at, "port")).get("port", 1)
    found = [(kind, read(draft, body[kind], (*at, kind)).get("port", 1)) for kind in ("tcp", "udp") if kind in body]
    return [Port(target=target, published=published, protocol=kind) for kind, published in found]


def _rule(draft: ServiceContext, body: dict[str, Any], at: Path_) -> Fields:
    fields: Fields = {}
    if not body.get("host"):
        draft.problem(at, "needs host, or tcp or udp", "write {host: shop.example.org, port: 80} or {tcp: 5432, port: 5432}")
        return {}
    try:
        fields["host"] = host_name(scalar(body["host"]))
    except HostNameError as error:
        draft.problem((*at, "host"), f"{scalar(body['host'])[:300]!r} {error}", "write shop.example.org or *.example.org")
    fields |= _by_name(draft, body, at)
    if "rate_limit" in body:
        fields |= _rate(draft, scalar(body["rate_limit"]), (*at, "rate_limit"))
    if "path" in body:
        text = scalar(body["path"])
        if why := path_problem(text):
            draft.problem((*at, "path"), f"{text[:300]!r} {why}", "write /api, without % and without a query")
        fields["path"] = text.rstrip("/") or "/"
    fields |= integer("port", 1, 65535)(draft, body["port"], (*at, "port"))
    if "weight" in body:
        fields |= integer("weight", 0, LARGEST_WEIGHT)(draft, body["weight"], (*at, "weight"))
    if "body_limit" in body:
        fields |= size("body_limit")(draft, body["body_limit"], (*at, "body_limit"))
    fields |= {k: flag(body[k]) for k in ("strip_path", "redirect", "compress") if k in body}
    fields |= {k: scalar(body[k]) for k in ("protocol", "sticky", "tls", "secret", "basic_auth", "maintenance") if k in body}
    headers = draft.reading.mapping(body.get("headers"), (*at, "headers"))
    for kind in ("request", "response"):
        fields[f"{kind}_headers"] = tuple(_headers(draft, headers.get(kind), (*at, "headers", kind)))
    fields["allow"] = tuple(_networks(draft, body.get("allow") or (), (*at, "allow")))
    _check_tls(draft, body, at)
    for key in ("secret", "basic_auth"):
        _check_declared(draft, scalar(body.get(key)), (*at, key))
    return fields


def _by_name(draft: ServiceContext, body: dict[str, Any], at: Path_) -> Fields:
    """The port of the nodes, of a rule for TLS connections that name its host."""
    if "udp" in body:
        draft.problem((*at, "udp"), "UDP names no host", "leave host out")
    if "tcp" not in body:
        return {}
    for key in body.keys() - {*BY_NAME, "udp"}:
        draft.problem((*at, key), "is for http: a connection with tcp is passed on as it is", "remove it, or tcp")
    return integer("tcp", 1, 65535)(draft, body["tcp"], (*at, "tcp"))


def _rate(draft: ServiceContext, text: str, at: Path_) -> Fields:
    match = re.fullmatch(_RATE, text)
    if not match:
        draft.problem(at, f"{text[:100]!r} is not a rate", "write 100/s, 100/m or 100/h")
        return {}
    return {"rate": int(match[1]), "rate_s": _SECONDS[match[2]]}


def _check_tls(draft: ServiceContext, body: dict[str, Any], at: Path_) -> None:
    if body.get("tls") == "manual" and not body.get("secret"):
        draft.problem(at, "tls: manual needs secret", "name a secret with the chain and the key, as PEM")
    if body.get("secret") and body.get("tls") != "manual":
        draft.problem((*at, "secret"), "is for tls: manual alone", "add tls: manual, or remove it")
    if body.get("tls") == "acme" and scalar(body.get("host")).count(".") == 0:
        draft.problem((*at, "tls"), "no authority certifies a name without a dot", "tls: internal")


def _check_declared(draft: ServiceContext, key: str, at: Path_) -> None:
    if key and key not in draft.reading.mapping(draft.reading.tree.value.get("secrets"), ("secrets",)):
        draft.reading.check(at, f"secret {key!r} is not declared", "declare it under secrets:")


def header_problem(name: str, value: str) -> str:
    """Why a file may not set this header, "" if it may."""
    if not re.fullmatch(_HEADER, name):
        return "is not a name of a header"
    if name.lower() in HOP_BY_HOP:
        return "frames the message: it cannot be set"
    if any((c < " " and c != "\t") or c == "\x7f" for c in value):
        return "has a control character in it: a header is one line of text"
    return ""


def _headers(draft: ServiceContext, value: Any, at: Path_) -> Iterator[tuple[str, str]]:
    for name, item in draft.reading.mapping(value, at).items():
        if why := header_problem(scalar(name), scalar(item)):
            draft.problem((*at, name), why)
        else:
            yield scalar(name), scalar(item)


def _networks(draft: ServiceContext, value: Iterable[Any], at: Path_) -> Iterator[str]:
    for number, item in enumerate(value):
        try:
            yield str(ipaddress.ip_network(scalar(item)))
        except ValueError:
            draft.problem(
                (*at, number), f"{scalar(item)[:300]!r} is not a network", "write 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32"
            )


def check_secrets(reading: LoadContext, services: Iterable[Service], contents: Sequence[StackContent]) -> None:
    """What secrets of rules contain: a chain and its key for the host, or users. Those made by hand the server looks at."""
    known = {c.key: c.content for c in contents if c.kind == "secret" and c.content is not None}
    for service in services:
        numbers = rule_numbers(reading, service.name)
        for rule in service.ingress:
            if (number := numbers.get(rule.where)) is None:
                continue  # read of another proxy's labels
            at: Path_ = ("services", service.name, "x-ingress", number)
            for key, why in secret_problems(rule, known):
                reading.check((*at, key), why[0], why[1])


def secret_problems(rule: IngressRule, contents: dict[str, bytes]) -> Iterator[tuple[str, tuple[str, str]]]:
    """(key of the rule, (why, what to do)) for each secret of *rule* among *contents* that does not do."""
    from orchestrator.stackfile.certificate_text import CertificateTextError, read_pair

    if rule.secret in contents:
        try:
            read_pair(contents[rule.secret], rule.host)
        except ModuleNotFoundError:
            pass  # a client alone has no library for certificates: the server looks at them
        except CertificateTextError as error:
            yield "secret", (f"secret {rule.secret!r}: {error}", "one PEM file: the certificate, those between, and the key")
    if rule.basic_auth in contents:
        text = contents[rule.basic_auth].decode(errors="replace")
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if not lines:
            yield "basic_auth", (f"secret {rule.basic_auth!r} has no users", "add lines with `htpasswd -nB USER`")
        for number, line in enumerate(lines, 1):
            if not re.fullmatch(_BCRYPT_LINE, line.strip()):
                yield (
                    "basic_auth",
                    (f"line {number} of secret {rule.basic_auth!r} is not USER:$2y$…", "make it with `htpasswd -nB USER`"),
                )


def users_of(content: bytes) -> list[tuple[str, str]]:
    """(name, bcrypt hash) of each line of a secret that `check_secrets` found good."""
    lines = content.decode(errors="replace").splitlines()
    return [
        (name, hashed)
        for line in lines
        if re.fullmatch(_BCRYPT_LINE, line.strip())
        for name, _, hashed in [line.strip().partition(":")]
    ]
