"""A build's options as BuildKit's Dockerfile frontend has them: one flat table of texts.

Source: BuildKit, frontend/dockerfile/builder and dockerui (names of the options); docs.docker.com, `docker buildx build`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from agent.build import attestations, cache_option
from agent.build.build_options import BuildOptions
from agent.build.cache_option import CacheOption
from agent.build.options_text import TRUE, words
from agent.buildkit.messages import CacheEntry, CacheOptions
from agent.contract.container import Ulimit
from agent.contract.printable import quoted
from agent.errors import BadRequestError, NotImplementedHereError
from agent.images import platforms

FRONTENDS = ("dockerfile.v0", "gateway.v0")
OURS = re.compile(r"(docker\.io/)?docker/dockerfile(-upstream)?(:.*|@.*)?")
NETWORKS = {"": "", "sandbox": "", "default": "", "bridge": "", "host": "host", "none": "none"}


def check(frontend: str, given: Mapping[str, str]) -> None:
    """Raises NotImplementedHereError for a frontend that is not built in, and for questions that are not builds."""
    source = given.get("source", "")
    if frontend not in FRONTENDS or (frontend == "gateway.v0" and not OURS.fullmatch(source)):
        raise NotImplementedHereError(
            f"frontend {quoted(source or frontend)}: this builder reads Dockerfiles itself, and no other frontend's files"
        )
    if request := given.get("requestid"):
        raise NotImplementedHereError(f"{quoted(request)}: this builder builds, and answers no questions about Dockerfiles")


def options(given: Mapping[str, str], entitlements: Sequence[str], cache: CacheOptions | None = None) -> BuildOptions:
    """Raises BadRequestError."""
    no_cache = given.get("no-cache")
    return BuildOptions(
        dockerfile=given.get("filename") or "Dockerfile",
        remote=given.get("context", ""),
        args=_named(given, "build-arg:"),
        labels=_named(given, "label:"),
        contexts={name.partition("::")[0]: value for name, value in _named(given, "context:").items()},
        target=given.get("target", ""),
        no_cache=no_cache is not None and not no_cache,
        no_cache_filter=tuple(words(no_cache or "")),
        pull=given.get("image-resolve-mode") in ("pull", "true"),
        network=NETWORKS.get(given.get("force-network-mode", ""), given.get("force-network-mode", "")),
        platforms=tuple(platforms.buildable(text) for text in words(given.get("platform", ""))),
        shm_size=_number(given, "shm-size"),
        extra_hosts=tuple(words(given.get("add-hosts", ""))),
        ulimits=tuple(_ulimit(text) for text in words(given.get("ulimit", ""))),
        cgroup_parent=given.get("cgroup-parent", ""),
        entitlements=tuple(entitlements),
        cache_from=_imports(given, cache),
        cache_to=_exports(given, cache),
        attestations=_attestations(given),
    )


def _imports(given: Mapping[str, str], cache: CacheOptions | None) -> tuple[CacheOption, ...]:
    """Caches to read, from wherever clients of some age say them. Raises BadRequestError."""
    found = [_cache(one) for one in (cache.imports if cache else ())]
    found += [
        cache_option.option(text) for text in (*words(given.get("cache-from", "")), *(cache.old_imports if cache else ()))
    ]
    try:
        imports = json.loads(given.get("cache-imports", "null")) or []
        more = [CacheEntry(type=str(one["Type"]), attributes=dict(one["Attrs"])) for one in imports]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadRequestError("cache-imports: a list of objects with Type and Attrs is wanted here") from None
    found += [_cache(one) for one in more]
    return tuple(one for number, one in enumerate(found) if one not in found[:number])


def _exports(given: Mapping[str, str], cache: CacheOptions | None) -> tuple[CacheOption, ...]:
    found = tuple(_cache(one) for one in (cache.exports if cache else ()))
    inline = given.get("build-arg:BUILDKIT_INLINE_CACHE", "").lower() in TRUE
    return (*found, CacheOption(kind="inline")) if inline else found


def _cache(one: CacheEntry) -> CacheOption:
    attributes = {str(name).lower(): str(value) for name, value in one.attributes.items()}
    return cache_option.checked(CacheOption(kind=one.type or "registry", attributes=attributes))


def _attestations(given: Mapping[str, str]) -> dict[str, dict[str, str]]:
    found = {name: attestations.wanted(name, text) for name, text in _named(given, "attest:").items()}
    return {name: asked for name, asked in found.items() if asked is not None}


def _named(given: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in given.items() if key.startswith(prefix)}


def _number(given: Mapping[str, str], name: str) -> int:
    text = given.get(name, "")
    if text and not re.fullmatch(r"[0-9]{1,18}", text):
        raise BadRequestError(f"{name}={quoted(text)}: a whole number is wanted here")
    return int(text or 0)


def _ulimit(text: str) -> Ulimit:
    match = re.fullmatch(r"([a-z]+)=(-?[0-9]{1,18})(?::(-?[0-9]{1,18}))?", text)
    if not match:
        raise BadRequestError(f"ulimit {quoted(text)}: it is written like nofile=1024:2048")
    return Ulimit(name=match[1], soft=int(match[2]), hard=int(match[3] or match[2]))
