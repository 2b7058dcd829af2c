"""The parts of the store on etcd that need no etcd: addresses, keys and requests."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.store.etcd import rpc
from orchestrator.store.etcd.address import Address, is_local
from orchestrator.store.etcd.keyspace import Keyspace, end_of
from orchestrator.store.interface import StoreError


def test_an_address_in_full() -> None:
    found = Address.parse("etcd://root:p%40ss@10.0.0.1,[fd00::1]:23790/prod/", ca="ca.pem", cert="c.pem", key="k.pem")
    assert found == Address(
        members=("10.0.0.1:2379", "[fd00::1]:23790"),
        prefix="prod",
        ca="ca.pem",
        cert="c.pem",
        key="k.pem",
        user="root",
        password="p@ss",
    )


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(StoreError, match="--cert and --key go together"):
        Address.parse("etcd://a", cert="c.pem")


@pytest.mark.parametrize(("member", "local"), [("127.0.0.1:2379", True), ("192.0.2.1:2379", False), ("a..b:1", False)])
def test_a_member_on_this_host(member: str, local: bool) -> None:
    assert is_local(member) is local


def test_keys_are_below_the_prefix() -> None:
    keys = Keyspace("prod")
    assert keys.encode("tasks/a") == b"/prod/tasks/a"
    assert keys.decode(b"/prod/tasks/a") == "tasks/a"


@pytest.mark.parametrize("prefix", ["a", "tasks/", "tasks/é"])
def test_the_end_of_a_prefix_is_behind_its_keys_only(prefix: str) -> None:
    end = end_of(prefix)
    assert prefix <= f"{prefix}\U0010fffe" < end
    assert not end.startswith(prefix)


def test_a_transaction_has_comparisons_and_two_branches() -> None:
    request: Any = rpc.txn_request(
        [(b"a", 7)], [rpc.put_request(b"a", b"1", lease=3), rpc.delete_request(b"b")], [rpc.range_request(b"a")]
    )
    read: Any = type(request).FromString(request.SerializeToString())
    [compare] = read.compare
    assert (compare.key, compare.mod_revision, compare.target, compare.result) == (b"a", 7, 2, 0)
    put, delete = read.success
    assert (put.request_put.key, put.request_put.value, put.request_put.lease) == (b"a", b"1", 3)
    assert delete.request_delete_range.key == b"b"
    assert read.failure[0].request_range.key == b"a"


def test_a_watch_begins_at_a_revision() -> None:
    request: Any = rpc.watch_request(b"a", b"b", start_revision=9)
    created = request.create_request
    assert (created.key, created.range_end, created.start_revision, created.progress_notify) == (b"a", b"b", 9, True)
