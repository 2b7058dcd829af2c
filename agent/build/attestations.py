"""What goes along with an image: where it comes from (provenance) and what it is made of (SBOM), as in-toto statements.

An index names the image and, beside it, a manifest of a platform called unknown, whose layers are the statements.
Source: in-toto Attestation Framework, Statement v0.1; SLSA Provenance v1; BuildKit, docs/attestations/attestation-storage.md.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from agent.build.job import Job
from agent.contract.printable import quoted
from agent.contract.times import timestamp
from agent.contract.version import VERSION
from agent.errors import BadRequestError
from agent.images import platforms, sbom, types
from agent.images.reference import parse
from agent.images.store import Image

PROVENANCE, SBOM = "provenance", "sbom"
STATEMENT, SLSA, SPDX = "https://in-toto.io/Statement/v0.1", "https://slsa.dev/provenance/v1", "https://spdx.dev/Document"
IN_TOTO = "application/vnd.in-toto+json"
BUILD_TYPE, BUILDER = "urn:pystack:build:dockerfile:v1", "urn:pystack:builder"
FALSE = ("0", "false", "no", "off")


def wanted(name: str, text: str) -> dict[str, str] | None:
    """The options of the attestation *name*: `mode=max,…`, true or false; None where there is to be none. Raises
    BadRequestError."""
    if name not in (PROVENANCE, SBOM):
        raise BadRequestError(f"attestation {quoted(name)!r} is not known: {PROVENANCE} and {SBOM} are")
    if text.lower() in FALSE:
        return None
    words = [] if text.lower() in ("", "1", "true") else text.split(",")
    pairs = dict(word.partition("=")[::2] for word in words)
    if pairs.get("disabled", "").lower() in ("1", "true") or pairs.get("inline-only", "").lower() in ("1", "true"):
        return None
    if pairs.get("mode", "min") not in ("min", "max"):
        raise BadRequestError(f"{name}: mode={quoted(pairs['mode'])}: min or max")
    return pairs


async def attach(built: Sequence[tuple[Job, Image]], started: float, annotations: dict[str, str]) -> str:
    """Make an index of the images that were *built*, with the attestations that were asked for, and attach it to the first of
    them, in whose place pushes and archives take it. Returns its digest, "" where one image has nothing beside it. Raises
    AgentError, OSError."""
    store = built[0][0].engine.images
    images, asides = [], []
    for job, image in built:
        images.append(
            types.Descriptor(
                types.OCI_MANIFEST, image.digest, store.blob(image.digest).stat().st_size, platforms.of_image(image.config)
            )
        )
        if job.options.attestations:
            asides.append(await _statements(job, image, started))
    if not asides and len(images) == 1 and not annotations:
        store.attached.drop(built[0][1].digest)
        return ""
    raw = msgspec.json.encode(types.ImageIndex((*images, *asides), annotations=dict(sorted(annotations.items())) or UNSET))
    digest = store.put_blob(raw)
    store.attached.put(built[0][1].digest, digest)
    return digest


async def _statements(job: Job, image: Image, started: float) -> types.Descriptor:
    """The manifest of the attestations of *image*. Raises AgentError, OSError."""
    store, layers = job.engine.images, []
    with job.report.work("exporting attestation manifest"):
        for name, options in job.options.attestations.items():
            kind, predicate = (
                (SPDX, await sbom.document(store, image)) if name == SBOM else (SLSA, _provenance(job, options, started))
            )
            statement = {"_type": STATEMENT, "predicateType": kind, "subject": _subjects(image), "predicate": predicate}
            raw = json.dumps(statement).encode()
            layers.append(
                types.Descriptor(IN_TOTO, store.put_blob(raw), len(raw), annotations={"in-toto.io/predicate-type": kind})
            )
        rootfs = {"type": "layers", "diff_ids": [layer.digest for layer in layers]}
        raw = json.dumps({"architecture": "unknown", "os": "unknown", "config": {}, "rootfs": rootfs}).encode()
        config = types.Descriptor(types.OCI_CONFIG, store.put_blob(raw), len(raw))
        raw = msgspec.json.encode(types.ImageManifest(config, tuple(layers)))
        aside = types.Descriptor(
            types.OCI_MANIFEST,
            store.put_blob(raw),
            len(raw),
            types.Platform("unknown", "unknown"),
            {"vnd.docker.reference.digest": image.digest, "vnd.docker.reference.type": "attestation-manifest"},
        )
        job.builder.transient |= {part.digest[7:27] for part in (*layers, config, aside)}
    return aside


def _subjects(image: Image) -> list[dict[str, Any]]:
    digest = {"sha256": image.digest[7:]}
    names = [parse(name) for name in image.names if "@" not in name]
    return [{"name": _purl(n.familiar, ""), "digest": digest} for n in names] or [{"name": "_", "digest": digest}]


def _purl(name: str, digest: str) -> str:
    reference = parse(name)
    bare = reference.familiar.removesuffix(f":{reference.tag}") if reference.tag else reference.familiar.partition("@")[0]
    return f"pkg:docker/{bare}" + (f"@{reference.tag}" if reference.tag else "") + (f"?digest={digest}" if digest else "")


def _provenance(job: Job, options: dict[str, str], started: float) -> dict[str, Any]:
    """A predicate of SLSA. Arguments and the Dockerfile's text are in it only in mode max: both may hold what others should not
    read."""
    asked, plan = job.options, job.plan
    request: dict[str, Any] = {
        "frontend": "dockerfile.v0",
        "target": asked.target,
        "platform": platforms.text_of(job.platform) if asked.platforms else "",
    }
    internal: dict[str, Any] = {"builderPlatform": platforms.text_of(platforms.own()), "version": VERSION}
    if options.get("mode") == "max":
        request |= {"args": dict(asked.args), "labels": dict(asked.labels), "noCache": asked.no_cache}
        internal["dockerfile"] = plan.file.text
    epoch = asked.epoch
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "configSource": {"path": asked.dockerfile, **({"uri": asked.remote} if asked.remote else {})},
                "request": {name: value for name, value in request.items() if value},
            },
            "internalParameters": internal,
            "resolvedDependencies": [
                {"uri": _purl(name, image.digest), "digest": {"sha256": image.digest[7:]}}
                for name, image in sorted(job.inputs.images().items())
            ],
        },
        "runDetails": {
            "builder": {"id": BUILDER},
            "metadata": {
                "invocationId": secrets.token_hex(12),
                "startedOn": timestamp(started if epoch is None else epoch),
                "finishedOn": timestamp(time.time() if epoch is None else epoch),
            },
        },
    }
