"""Documents of images that say what they must not. What the fuzzer found stands here by name."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from agent.api import images as described
from agent.engine.stopping import signal_number
from agent.errors import BadRequestError, ImageError
from agent.images import documents, platforms, types
from agent.images.pull import choose
from agent.images.reference import parse
from agent.images.store import Image
from agent.settings import ImageLimits

DIGEST = "sha256:" + "a" * 64
LAYER = {"mediaType": types.OCI_LAYER, "digest": DIGEST, "size": 5}
CONFIG_OF = {"mediaType": types.OCI_CONFIG, "digest": DIGEST, "size": 5}
LIMITS = ImageLimits(layers=3, manifest_bytes=4096, config_bytes=8192, bytes=1000)


def config(**fields: Any) -> bytes:
    return json.dumps({"rootfs": {"diff_ids": [DIGEST]}, **fields}).encode()


def run(**fields: Any) -> bytes:
    return config(config=fields)


CONFIGS = {
    "a layer that is a folder of the host": (config(rootfs={"diff_ids": ["../../../../etc"]}), "is not sha256: and 64 hex"),
    "a layer without a name": (config(rootfs={"diff_ids": [""]}), "is not sha256: and 64 hex digits"),
    "brackets without end": (b'{"rootfs":' + b"[" * 1000, "is malformed"),
    "brackets": (b'{"rootfs":{"diff_ids":[]},"config":{"Volumes":{"/x":' + b"[" * 5000, "is nested too deeply"),
    "a number where a list is": (run(Env=5), r"Expected `array \| null`, got `int` - at `$.config.Env`"),
    "a zero byte in a variable": (run(Env=["A=\0"]), "env holds a zero byte"),
    "a zero byte in a path": (run(Volumes={"/a\0b": {}}), "volumes holds a zero byte"),
    "a span of time before the beginning": (run(Healthcheck={"Interval": -1}), "a duration of Healthcheck is out of range"),
    "too many bytes": (config(author="x" * 8192), "has more than the 8192 bytes"),
    "text that is no UTF-8": (b'{"author": "\xff"}', "is malformed"),
    "layers that the manifest does not have": (config(rootfs={"diff_ids": [DIGEST] * 2}), "names 2 layers, the manifest 1"),
    "nothing": (b"", "is malformed"),
    "escape sequences": (b'{"rootfs": {"diff_ids": ["\\u001b[2J"]}}', "is not sha256"),
}


@pytest.mark.parametrize(("data", "why"), CONFIGS.values(), ids=CONFIGS)
def test_a_config_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ImageError) as caught:
        documents.config(data, "the config of image a:1", LIMITS, layers=1)
    said = str(caught.value)
    assert said.startswith("the config of image a:1 ")
    assert why.replace("\\", "") in said
    assert len(said) < 400
    assert said.isprintable()


MANIFESTS = {
    "too many layers": ({"config": CONFIG_OF, "layers": [LAYER] * 4}, "has 4 layers; 3 are allowed (limits.layers)"),
    "a config that claims too much": ({"config": CONFIG_OF | {"size": 9999}, "layers": []}, "limits.config_bytes"),
    "a layer that claims too much": ({"config": CONFIG_OF, "layers": [LAYER | {"size": 1001}]}, "limits.bytes"),
    "a layer of less than nothing": ({"config": CONFIG_OF, "layers": [LAYER | {"size": -1}]}, "size -1 is not a size"),
    "a layer by another digest": ({"config": CONFIG_OF, "layers": [LAYER | {"digest": "sha512:0"}]}, "is not sha256:"),
    "a digest that is a path": ({"config": CONFIG_OF | {"digest": "sha256:../../x"}, "layers": []}, "ALGORITHM:HEX"),
}


@pytest.mark.parametrize(("document", "why"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_is_refused(document: dict[str, Any], why: str) -> None:
    with pytest.raises(ImageError) as caught:
        documents.manifest(json.dumps(document).encode(), "the manifest of image a:1", LIMITS)
    assert why in str(caught.value)


def test_a_document_that_is_a_manifest_and_an_index_is_neither() -> None:
    """CVE-2021-41190."""
    data = json.dumps({"config": CONFIG_OF, "layers": [], "manifests": []}).encode()
    with pytest.raises(ImageError, match="neither a manifest nor an index"):
        documents.kind_of(data, types.OCI_MANIFEST, "it", 4096)


def test_what_an_index_calls_its_platforms_does_not_fill_a_terminal() -> None:
    entries = [types.Descriptor(types.OCI_MANIFEST, DIGEST, 1, types.Platform(f"\x1b[{i}J", "x" * 500)) for i in range(500)]
    with pytest.raises(ImageError) as caught:
        choose(types.ImageIndex(tuple(entries)), platforms.read("linux/amd64"), "a:1")
    assert len(str(caught.value)) < 2000
    assert str(caught.value).isprintable()


def test_an_index_may_name_what_we_do_not_read() -> None:
    """An entry by sha512 for another machine is none of our business."""
    other = types.Descriptor(types.OCI_MANIFEST, "sha512:" + "0" * 128, 1, types.Platform("riscv64", "linux"))
    mine = types.Descriptor(types.OCI_MANIFEST, DIGEST, 1, types.Platform("amd64", "linux"))
    found = documents.index(msgspec.json.encode(types.ImageIndex((other, mine))), "it", LIMITS)
    assert choose(found, platforms.read("linux/amd64")) == mine


def test_a_name_that_is_refused_is_told_in_short() -> None:
    with pytest.raises(BadRequestError) as caught:
        parse("\x1b[2J" + "z" * 100_000)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["²", "٣", "9" * 5000, "SIGRTMIN+99", "SIGRTMIN+٣", "", "65"])
def test_signals_that_do_not_exist(name: str) -> None:
    with pytest.raises(BadRequestError, match="Invalid signal"):
        signal_number(name)


def test_an_image_may_say_that_it_is_from_the_end_of_time() -> None:
    """`created: inf` was a traceback of `image ls`."""
    found = documents.config(config(created="inf"), "it", LIMITS, layers=1)
    name = "docker.io/library/a:1"
    image = Image(id=DIGEST, digest=DIGEST, names=(name,), config=found, layers=(DIGEST,), size=1, created="inf")
    assert described.summary(image)["Created"] == described.ZERO_TIME
