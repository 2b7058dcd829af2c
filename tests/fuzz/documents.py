"""What is read of images: configs, manifests, indexes, archives' tables, registries' tokens and challenges, names."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from typing import Any

from agent.api import images as described
from agent.errors import AgentError
from agent.images import documents, platforms, types
from agent.images.pull import choose
from agent.images.reference import DIGEST, parse
from agent.images.store import Image
from agent.settings import ImageLimits
from tests.fuzz import mutate
from tests.fuzz.area import Area, Run

_HEX = "0123456789abcdef" * 4
DIGESTS = [f"sha256:{_HEX[i:]}{_HEX[:i]}" for i in range(4)]


def descriptor(number: int, kind: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": DIGESTS[number], "size": 1000 + number, **more}


CONFIG = json.dumps(
    {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-05-06T07:08:09.123456789Z",
        "author": "somebody",
        "config": {
            "User": "app:app",
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "Env": ["PATH=/bin", "A=b"],
            "Entrypoint": ["/bin/run"],
            "Cmd": ["serve", "--all"],
            "Volumes": {"/data": {}},
            "WorkingDir": "/srv",
            "Labels": {"a.b": "c"},
            "StopSignal": "SIGQUIT",
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 10**9, "Timeout": 10**9, "Retries": 3, "StartPeriod": 0},
        },
        "rootfs": {"type": "layers", "diff_ids": [DIGESTS[0], DIGESTS[1]]},
        "history": [
            {"created": "2024-05-06T07:08:09Z", "created_by": "COPY", "comment": "c", "empty_layer": False},
            {"created_by": "CMD", "empty_layer": True},
        ],
    }
)
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": types.OCI_MANIFEST,
        "config": descriptor(0, types.OCI_CONFIG),
        "layers": [descriptor(1, types.OCI_LAYER + "+gzip"), descriptor(2, types.OCI_LAYER)],
        "annotations": {"a": "b"},
    }
)
INDEX = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": types.OCI_INDEX,
        "manifests": [
            descriptor(0, types.OCI_MANIFEST, platform={"architecture": "amd64", "os": "linux"}),
            descriptor(1, types.OCI_MANIFEST, platform={"architecture": "arm64", "os": "linux", "variant": "v8"}),
            descriptor(2, types.OCI_MANIFEST, annotations={"io.containerd.image.name": "docker.io/library/a:1"}),
        ],
    }
)
SAVED = json.dumps([{"Config": "blobs/sha256/" + _HEX, "RepoTags": ["a:1", "b/c:2"], "Layers": ["x/layer.tar", "y/layer.tar"]}])
LIMITS = ImageLimits(layers=500, manifest_bytes=1 << 19, config_bytes=1 << 19)
NAMES = ("nginx", "a/b:1", "localhost:5000/x", "h.example/p/q@" + DIGESTS[0], "[::1]:5000/x:y", "docker.io/library/a")


def _config(rng: random.Random) -> None:
    data = mutate.document(rng, CONFIG)
    found = documents.config(data, "the config of image a:1", LIMITS, layers=rng.choice((1, 2, 2, 2, 2)))
    image = Image(
        id=DIGESTS[0],
        digest=DIGESTS[1],
        names=("docker.io/library/a:1",),
        config=found,
        layers=found.rootfs.diff_ids,
        size=1,
        created=found.created or "",
    )
    json.dumps(described.inspected(image))
    assert all(DIGEST.match(d) for d in found.rootfs.diff_ids), "a layer with a name of its own"


def _manifest(rng: random.Random) -> None:
    data = mutate.document(rng, MANIFEST)
    documents.kind_of(
        data, rng.choice(("", types.OCI_MANIFEST, "text/html; x")), "the manifest of image a:1", LIMITS.manifest_bytes
    )
    found = documents.manifest(data, "the manifest of image a:1", LIMITS)
    assert all(d.size >= 0 and DIGEST.match(d.digest) for d in (found.config, *found.layers)), "a blob with a name of its own"


def _index(rng: random.Random) -> None:
    data = mutate.document(rng, INDEX)
    documents.kind_of(data, "", "the index of image a:1", LIMITS.manifest_bytes)
    choose(documents.index(data, "the index of image a:1", LIMITS), platforms.read(rng.choice(("amd64", "arm64", "riscv64"))))


def _saved(rng: random.Random) -> None:
    for entry in documents.saved(mutate.document(rng, SAVED), "manifest.json", LIMITS):
        for name in entry.repo_tags or ():
            parse(name)


def _name(rng: random.Random) -> None:
    text = (
        mutate.some(rng, rng.choice(NAMES).encode()).decode(errors="replace")
        if rng.random() < 0.7
        else rng.choice(mutate.TEXTS)
    )
    found = parse(text)
    assert found.name
    assert found.familiar
    assert parse(found.name).name == found.name, "its full name is another"


KINDS: tuple[Callable[[random.Random], None], ...] = (_config, _config, _manifest, _index, _saved, _name)


class Documents(Area):
    name = "documents"
    share = 0.42

    def run(self, inputs: Iterable[int], run: Run) -> None:
        for index in inputs:
            rng = run.rng(index)
            run.judge(index, lambda rng=rng: rng.choice(KINDS)(rng), (AgentError,))  # type: ignore[misc]
