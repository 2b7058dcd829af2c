"""`build:` of a service. Source: Compose Specification, build.md."""

from __future__ import annotations

from typing import Any

from orchestrator.stackfile.field_readers import (
    Fields,
    ServiceContext,
    decimal,
    duration,
    extra_hosts,
    flag,
    scalar,
    size,
    ulimits,
)
from orchestrator.stackfile.marked_document import Path_
from orchestrator.stackfile.merge import as_mapping
from orchestrator.stackfile.model import Build, BuildLimits, BuildSecret
from orchestrator.stackfile.remote import is_remote

ADDRESSES = ("docker-image://", "http://", "https://", "git://", "ssh://")
"""How further contexts begin that are not paths, besides git@HOST:PATH and github.com/…."""


def build(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.build: a context as text, or the long form."""
    body = {"context": value} if isinstance(value, str) else draft.reading.mapping(value, path)
    context = scalar(body.get("context", "."))
    remote = is_remote(context)
    platforms = tuple(scalar(p) for p in body.get("platforms") or ())
    more: Fields = {}
    if "shm_size" in body:
        more |= size("shm_size")(draft, body["shm_size"], (*path, "shm_size"))
    if "ulimits" in body:
        more |= ulimits(draft, body["ulimits"], (*path, "ulimits"))
    if "extra_hosts" in body:
        more |= extra_hosts(draft, body["extra_hosts"], (*path, "extra_hosts"))
    directory = context if remote else draft.reading.host_path(context)
    given = {k: draft.variables.get(k) if v is None else scalar(v) for k, v in as_mapping(body.get("args")).items()}
    args = {k: v for k, v in given.items() if v is not None}  # of one that is not set the Dockerfile's own default counts
    return {
        "build": Build(
            context=str(directory),
            remote=remote,
            dockerfile=scalar(body.get("dockerfile", "Dockerfile")),
            dockerfile_inline=scalar(body.get("dockerfile_inline")),
            args=tuple(sorted(args.items())),
            target=scalar(body.get("target")),
            labels=tuple(sorted((k, scalar(v)) for k, v in as_mapping(body.get("labels")).items())),
            tags=tuple(map(scalar, body.get("tags") or ())),
            no_cache=flag(body.get("no_cache")),
            no_cache_filter=_texts(body.get("no_cache_filter")),
            entitlements=_texts(body.get("entitlements")),
            pull=flag(body.get("pull")),
            network=scalar(body.get("network")),
            contexts=tuple(
                sorted(
                    (name, _context(draft, scalar(text), (*path, "additional_contexts", name)))
                    for name, text in as_mapping(body.get("additional_contexts")).items()
                )
            ),
            secrets=_build_secrets(draft, body.get("secrets"), (*path, "secrets")),
            platforms=platforms,
            privileged=flag(body.get("privileged")),
            cache_from=_texts(body.get("cache_from")),
            cache_to=_texts(body.get("cache_to")),
            provenance=_attestation(body.get("provenance")),
            sbom=_attestation(body.get("sbom")),
            ssh=tuple((name, scalar(value or "")) for name, value in as_mapping(body.get("ssh")).items()),
            **more,
        )
    }


def x_build(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.x-build."""
    body = draft.reading.mapping(value, path)
    found: Fields = {}
    for name, read in (("memory", size("memory")), ("cpus", decimal("cpus")), ("timeout", duration("timeout_s"))):
        if name in body:
            found |= read(draft, body[name], (*path, name))
    return {"build_node": scalar(body.get("node")), "build_limits": BuildLimits(**found)}


def _attestation(value: Any) -> str:
    """Its options, "" where there is to be none."""
    return "" if value is None or value is False else "true" if value is True else scalar(value)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(scalar(one) for one in (value if isinstance(value, list | tuple) else [value] if value else ()))


def _context(draft: ServiceContext, text: str, path: Path_) -> str:
    """A further context; `target:NAME`, as Bake calls the build of a service, is `service:NAME`."""
    if text.startswith("target:"):
        return f"service:{text.removeprefix('target:')}"
    if "://" in text and not text.startswith(ADDRESSES):
        draft.reading.check(
            path,
            f"{text} is not a context",
            "name a folder, a repository, the URL of a tar, docker-image://NAME or service:NAME",
        )
    return text if text.startswith("service:") or is_remote(text) else str(draft.reading.host_path(text))


def _build_secrets(draft: ServiceContext, value: Any, path: Path_) -> tuple[BuildSecret, ...]:
    out = []
    declared = draft.reading.mapping(draft.reading.tree.value.get("secrets"), ("secrets",))
    for number, item in enumerate(draft.reading.sequence(value, path)):
        body = item if isinstance(item, dict) else {"source": scalar(item)}
        source = scalar(body.get("source"))
        if source not in declared:
            draft.reading.check((*path, number), f"secret {source!r} is not declared", "declare it under secrets:")
            continue
        known = draft.reading.mapping(declared[source], ("secrets", source))
        if not known.get("file") and not known.get("environment"):
            draft.reading.check(
                (*path, number), f"secret {source!r} has no content that the client can read", "give it file: or environment:"
            )
            continue
        out.append(
            BuildSecret(
                id=scalar(body.get("target")) or source,
                environment=scalar(known.get("environment")),
                file=str(draft.reading.host_path(scalar(known["file"]))) if known.get("file") else "",
            )
        )
    return tuple(out)
