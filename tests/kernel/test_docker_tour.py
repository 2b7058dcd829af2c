"""A tour of Docker's command, by Debian's client and by the newer one, shows what it shows of Docker's own daemon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.beside.tour import CLIENTS, MEANT, chapters, client, compared
from tests.conftest import PATIENCE, cluster_of

pytestmark = [pytest.mark.kernel, pytest.mark.long, pytest.mark.timeout(400 * PATIENCE)]


@pytest.fixture(scope="module")
def socket() -> Iterator[str]:
    """Of a node that has no image but busybox."""
    with cluster_of(1) as lab:
        yield f"{lab.environment['PYSTACK_ROOT']}/run/docker.sock"


@pytest.mark.parametrize(("name", "chapter"), [(name, chapter) for name in CLIENTS for chapter in chapters(name)])
def test_a_chapter_shows_what_it_shows_of_dockers_daemon(socket: str, name: str, chapter: str) -> None:
    if client(name) is None:
        pytest.skip(f"there is no client {name}")
    found = compared(chapter, name, socket)
    assert not found, "\n".join(found)


def test_a_difference_that_is_meant_has_a_reason() -> None:
    assert all(MEANT.values())
