"""Bodies of the Engine API, compared with their shapes; and the keys with which somebody leaves a terminal."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.api import shapes
from agent.api.context import plain
from agent.api.filters import moment_of, path_matches
from agent.api.hijack import Keys
from agent.api.instructions import changes, nanoseconds
from agent.api.shape_kinds import Map
from agent.errors import BadRequestError

SHAPE = {
    "Name": str,
    "Count": int,
    "Words": shapes.WORDS,
    "Labels": Map(str),
    "Inner": {"On": bool, "List": [str]},
    "Ports": Map([{"HostPort": str}]),
    "Small": shapes.UINT16,
}
TAKEN: dict[str, tuple[Any, Any]] = {
    "names in any case": ({"name": "a", "INNER": {"on": True}}, {"Name": "a", "Inner": {"On": True}}),
    "the exact name goes first": ({"name": "a", "Name": "b"}, {"Name": "b"}),
    "null is nothing": ({"Name": None, "Inner": None, "Labels": None}, {}),
    "null in a list or map is an empty one": (
        {"Labels": {"a": None}, "Ports": {"80": None}, "Inner": {"List": [None]}},
        {"Labels": {"a": ""}, "Ports": {"80": []}, "Inner": {"List": [""]}},
    ),
    "what nobody knows is passed over": ({"Other": [1, 2]}, {}),
    "a word for a list of one": ({"Words": "true"}, {"Words": ["true"]}),
}
REFUSED: dict[str, tuple[Any, str]] = {
    "a number for a text": ({"Name": 5}, "Name: a string is wanted here, and this is a whole number"),
    "true for a number": ({"Count": True}, "Count: a whole number is wanted here, and this is true or false"),
    "a fraction": ({"Count": 1.5}, "Count: a whole number"),
    "beyond 64 bits": ({"Count": 1 << 63}, "Count: 9223372036854775808 is out of range"),
    "beyond 16 bits": ({"Small": 65536}, "Small: 65536 is out of range: from 0 to 65535"),
    "deep inside": ({"Ports": {"80/tcp": [{"HostPort": 80}]}}, "Ports.80/tcp[0].HostPort: a string"),
    "a list for an object": ([], "$: an object is wanted"),
}


@pytest.mark.parametrize(("sent", "taken"), TAKEN.values(), ids=TAKEN)
def test_read(sent: Any, taken: Any) -> None:
    assert shapes.read(json.dumps(sent).encode(), SHAPE) == taken


@pytest.mark.parametrize(("sent", "said"), REFUSED.values(), ids=REFUSED)
def test_refused(sent: Any, said: str) -> None:
    with pytest.raises(BadRequestError) as refusal:
        shapes.read(json.dumps(sent).encode(), SHAPE)
    assert str(refusal.value).startswith(f"$.{said}" if said[0] != "$" else said)


@pytest.mark.parametrize("raw", [b"{", b"\xff", b'{"a":}', b"\x00"])
def test_no_json(raw: bytes) -> None:
    with pytest.raises(BadRequestError, match="not JSON"):
        shapes.read(raw, SHAPE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


@given(st.dictionaries(st.sampled_from([*shapes.CREATE, *shapes.NETWORK]), JSON, max_size=4))
def test_whatever_is_sent_is_taken_as_it_should_be_or_refused(sent: dict[str, Any]) -> None:
    for shape in (shapes.CREATE, shapes.NETWORK, shapes.EXEC):
        try:
            taken = shapes.read(json.dumps(sent).encode(), shape)
        except BadRequestError:
            continue
        assert shapes.fitting(taken, shape, "") == taken  # what was taken once is right


@given(st.lists(st.binary(max_size=4), max_size=8), st.binary(max_size=6), st.sampled_from(["ctrl-p,ctrl-q", "a", "a,a,b", ""]))
def test_keys_are_found_however_they_come_in_and_all_else_goes_through(before: list[bytes], after: bytes, text: str) -> None:
    wanted = {"a": b"a", "a,a,b": b"aab"}.get(text, b"\x10\x11")
    whole = b"".join(before) + wanted + after
    keys, through, left = Keys(text), b"", False
    for piece in [*before, *(wanted[i : i + 1] for i in range(len(wanted))), after]:
        passed, left = keys.passed(piece)
        through += passed
        if left:
            break
    assert left
    assert through == whole[: whole.find(wanted)]


@pytest.mark.parametrize("text", ["bad-keys", "ctrl-", "ctrl-1", "ctrl-p,", "é"])
def test_keys_that_are_none(text: str) -> None:
    with pytest.raises(BadRequestError, match="Invalid escape keys"):
        Keys(text)


def test_instructions() -> None:
    found = changes(
        [
            'ENV A=1 B="2 3"',
            "ENV C the rest",
            "EXPOSE 80 90-91/udp",
            "VOLUME /a /b",
            'VOLUME ["/c d"]',
            "CMD echo hi",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD curl -f x",
            "LABEL a.b=c\nUSER me",
        ]
    )
    assert found.env == ("A=1", "B=2 3", "C=the rest")
    assert list(found.exposed_ports or ()) == ["80/tcp", "90/udp", "91/udp"]
    assert list(found.volumes or ()) == ["/a", "/b", "/c d"]
    assert found.cmd == ("/bin/sh", "-c", "echo hi")
    assert found.healthcheck
    assert (found.healthcheck.interval, found.healthcheck.retries) == (90 * 10**9, 2)
    assert (found.labels, found.user) == ({"a.b": "c"}, "me")
    for wrong in ("RUN x", "ENV", "EXPOSE 99999", "EXPOSE x", "HEALTHCHECK --bogus=1 CMD x", "LABEL 'a", "ENV A=1 B"):
        with pytest.raises(BadRequestError):
            changes([wrong])
    assert nanoseconds("1h0.5s") == 3600 * 10**9 + 5 * 10**8


def test_times_and_patterns() -> None:
    assert moment_of("1700000000.5") == 1700000000.5
    assert moment_of("2023-11-14T22:13:20Z") == 1700000000
    assert moment_of("1h") < moment_of("1m") < moment_of("0s")
    with pytest.raises(BadRequestError):
        moment_of("yesterday")
    assert path_matches("*box", "busybox")
    assert not path_matches("*box", "some/box")
    assert path_matches("some/b?x", "some/box")
    assert not path_matches("a.c", "abc")


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["plain", "gzip", "bzip2", "xz"])
def test_a_context_is_plain_and_whole_in_the_end(pack: Any) -> None:
    """However it is compressed, in whatever pieces it comes, and whether its end is there or not."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = 700
        archive.addfile(entry, io.BytesIO(b"x" * 700))
    cut = whole.getvalue()[: 512 + 700]

    async def read(raw: bytes, step: int) -> bytes:
        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(raw), step):
                yield raw[at : at + step]

        return b"".join([piece async for piece in plain(pieces())])

    for raw in (whole.getvalue(), cut):
        for step in (1, 100, 1 << 20):
            found = asyncio.run(read(pack(raw), step))
            assert found.startswith(cut)
            assert found.rstrip(b"\0") == cut
            assert found.endswith(bytes(1024))
            assert len(found) % 512 == 0


def test_a_damaged_context_is_refused() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield gzip.compress(b"x" * 99)[:12] + b"junk junk junk junk"

    async def read() -> None:
        async for _ in plain(pieces()):
            pass

    with pytest.raises(BadRequestError, match="damaged"):
        asyncio.run(read())
