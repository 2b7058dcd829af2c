"""Configs and secrets in a real store: what is written, who can read it, and what is forgotten."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from agent.contract.container import Container, File
from agent.contract.sealing import UnsealableError, make_key, seal, unseal
from orchestrator.errors import PystackError, RefusedError
from orchestrator.server.contents import LARGEST, Contents
from orchestrator.stackfile.model import Service, Stack, StackContent
from orchestrator.store.interface import Put
from orchestrator.store.sqlite import SqliteStore

FILE = File(target="/run/secrets/db", source="db", secret=True)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = await SqliteStore.open(tmp_path / "store.db")
    yield made
    await made.close()


async def opened(store: SqliteStore, folder: Path, name: str = "n1") -> Contents:
    made = Contents(store, folder, name)
    await made.start()
    return made


def stack(*contents: StackContent, files: tuple[File, ...] = (FILE,)) -> Stack:
    service = Service(name="a", where="", container=Container(image="i", files=files))
    return Stack(name="s", services=(service,), contents=contents)


def secret(content: bytes | None, *, external: bool = False, name: str = "s_db") -> StackContent:
    return StackContent(kind="secret", key="db", name=name, content=content, external=external, where="f.yml:3:1")


def test_a_key_that_is_asked_for_many_times_at_once_is_one(tmp_path: Path) -> None:
    for attempt in range(20):
        together = threading.Barrier(8)

        def ask(folder: Path = tmp_path / str(attempt), together: threading.Barrier = together) -> str:
            together.wait()
            return make_key(folder, "seal")

        with ThreadPoolExecutor(8) as pool:
            keys = {future.result() for future in [pool.submit(ask) for _ in range(8)]}
        assert keys == {make_key(tmp_path / str(attempt), "seal")}


def test_only_the_node_opens_what_was_sealed_to_it(tmp_path: Path) -> None:
    key = make_key(tmp_path / "a", "seal")
    assert make_key(tmp_path / "a", "seal") == key
    make_key(tmp_path / "b", "seal")
    sealed = seal(key, b"plain", "purpose")
    assert unseal(tmp_path / "a", sealed, "purpose") == b"plain"
    for folder, data, purpose in (
        ("b", sealed, "purpose"),
        ("a", sealed, "other"),
        ("a", sealed[:-1] + b"\0", "purpose"),
        ("a", b"", "purpose"),
        ("none", sealed, "purpose"),
    ):
        with pytest.raises(UnsealableError):
            unseal(tmp_path / folder, data, purpose)
    assert (tmp_path / "a" / "seal.key").stat().st_mode & 0o777 == 0o600


async def test_the_store_has_no_secret_in_the_clear_and_the_node_has(store: SqliteStore, tmp_path: Path) -> None:
    contents = await opened(store, tmp_path / "server")
    given = stack(secret(b"hunter2"))
    await contents.keep(given.contents)
    settled = contents.with_digests(given)
    file = settled.services[0].container.files[0]
    assert file.digest
    assert b"hunter2" not in msgspec.json.encode(settled)
    assert all(b"hunter2" not in e.value for e in await store.scan(""))
    public = make_key(tmp_path / "node", "seal")
    sent = contents.content_for_node(file, public)
    assert sent
    assert unseal(tmp_path / "node", sent.data, file.digest) == b"hunter2"
    assert contents.content_for_node(file, public) == sent, "sealed once for each node, so that nothing seems to have changed"
    assert contents.content_for_node(file, "") is None
    # the same again is the same task; another content is another
    assert contents.with_digests(given) == settled
    assert contents.with_digests(stack(secret(b"hunter3"))) != settled


async def test_a_digest_of_a_secret_is_no_hash_of_it(store: SqliteStore, tmp_path: Path) -> None:
    one = (await opened(store, tmp_path / "server")).with_digests(stack(secret(b"1234")))
    other = (await opened(store, tmp_path / "server")).with_digests(stack(secret(b"1234")))
    assert one.contents[0].digest != other.contents[0].digest, "no key is written before there is a secret"


async def test_a_server_that_starts_again_or_takes_over_can_open_them(store: SqliteStore, tmp_path: Path) -> None:
    await store.transact((), [Put("servers/n2", make_key(tmp_path / "n2", "seal").encode())])
    first = await opened(store, tmp_path / "n1")
    given = stack(secret(b"hunter2"))
    await first.keep(given.contents)
    settled = first.with_digests(given)
    file = settled.services[0].container.files[0]
    for folder, name in (("n1", "n1"), ("n2", "n2")):
        later = await opened(store, tmp_path / folder, name)
        assert later.with_digests(given) == settled
        sent = later.content_for_node(file, make_key(tmp_path / "node", "seal"))
        assert sent
        assert unseal(tmp_path / "node", sent.data, file.digest) == b"hunter2"


async def test_one_that_joins_later_gets_the_key_from_who_leads(store: SqliteStore, tmp_path: Path) -> None:
    first = await opened(store, tmp_path / "n1")
    await first.keep([secret(b"hunter2")])
    stranger = await opened(store, tmp_path / "n2", "n2")
    with pytest.raises(RefusedError, match=r"server n2 cannot open the cluster's secrets: .*Start a server that can"):
        stranger.with_digests(stack(secret(b"hunter2")))
    assert stranger.content_for_node(msgspec.structs.replace(FILE, digest="0" * 32), "") is None
    await store.transact((), [Put("servers/n2", make_key(tmp_path / "n2", "seal").encode())])
    await opened(store, tmp_path / "n1")
    assert (await opened(store, tmp_path / "n2", "n2")).with_digests(stack(secret(b"hunter2"))).contents[0].digest
    # a host whose disk was replaced has another key: it gets the cluster's anew
    await store.transact((), [Put("servers/n2", make_key(tmp_path / "n2-new", "seal").encode())])
    await opened(store, tmp_path / "n1")
    assert (await opened(store, tmp_path / "n2-new", "n2")).with_digests(stack(secret(b"hunter2"))).contents[0].digest


async def test_what_the_client_could_not_read_takes_nothing_away(store: SqliteStore, tmp_path: Path) -> None:
    contents = await opened(store, tmp_path / "n1")
    gone = msgspec.structs.replace(secret(None), problem="f.yml:4:5: secrets.db.file: /x cannot be read: No such file")
    with pytest.raises(PystackError, match=r"f.yml:4:5: secrets.db.file: /x cannot be read"):
        contents.with_digests(stack(gone))


async def test_one_made_by_hand_is_found_replaced_and_removed(store: SqliteStore, tmp_path: Path) -> None:
    contents = await opened(store, tmp_path / "n1")
    asked = stack(secret(None, external=True, name="db"))
    with pytest.raises(PystackError, match=r"f.yml:3:1: secrets.db: external secret db does not exist: `pystack secret create"):
        contents.with_digests(asked)
    await contents.create("secret", "db", b"one", replace=False)
    before = contents.with_digests(asked)
    with pytest.raises(RefusedError, match="--replace"):
        await contents.create("secret", "db", b"two", replace=False)
    await contents.create("secret", "db", b"two", replace=True)
    contents = await opened(store, tmp_path / "n1")
    after = contents.with_digests(asked)
    assert before.contents[0].digest != after.contents[0].digest
    assert contents.with_digests(before) == before, "what was applied with the old content stays so until the next up"
    with pytest.raises(RefusedError, match="used by stack s"):
        await contents.remove("secret", "db", ["s"])
    await contents.remove("secret", "db", [])
    with pytest.raises(RefusedError, match="there is: none"):
        contents.find("secret", "db")


async def test_of_two_who_create_the_same_at_once_one_is_refused(store: SqliteStore, tmp_path: Path) -> None:
    contents = await opened(store, tmp_path / "n1")
    creations = (contents.create("secret", "db", one, replace=False) for one in (b"one", b"two"))
    first, second = await asyncio.gather(*creations, return_exceptions=True)
    assert isinstance(second, RefusedError)
    assert not isinstance(first, BaseException)
    assert contents.read("secret", "db") == b"one"


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a b", "x" * 65, "ä"])
async def test_a_name_that_is_none_is_refused(store: SqliteStore, tmp_path: Path, name: str) -> None:
    with pytest.raises(RefusedError, match="is not a name of a config"):
        await (await opened(store, tmp_path / "n1")).create("config", name, b"", replace=False)


async def test_what_nobody_refers_to_is_forgotten(store: SqliteStore, tmp_path: Path) -> None:
    contents = await opened(store, tmp_path / "n1")
    await contents.create("config", "kept", b"by name", replace=False)
    await contents.keep([StackContent(kind="config", key=k, name=k, content=k.encode()) for k in ("used", "left")])
    used = StackContent(kind="config", key="used", name="used", content=b"used")
    digest = contents.with_digests(stack(used)).contents[0].digest
    await contents.sweep({digest})
    assert len(await store.scan("contents/")) == 2
    assert contents.content_for_node(File(target="/x", source="used", digest=digest), "")


async def test_one_that_is_too_large_is_refused_with_its_place(store: SqliteStore, tmp_path: Path) -> None:
    contents = await opened(store, tmp_path / "n1")
    with pytest.raises(PystackError, match=r"f.yml:3:1: a secret has at most 700 KiB"):
        contents.with_digests(stack(secret(b"x" * (LARGEST + 1))))
    await contents.keep([secret(b"x" * LARGEST)])
