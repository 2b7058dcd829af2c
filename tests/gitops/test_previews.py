"""Which branches have previews, what they are called, and what a preview does not share."""

from __future__ import annotations

import datetime
import random
from pathlib import Path

import pytest

from orchestrator.errors import PystackError
from orchestrator.gitops.model import Commit, Preview, Repo, SyncOutcome, SyncState
from orchestrator.gitops.previews import LONGEST, MOST, as_preview, child, chosen, has_expired, slug, too_old
from orchestrator.stackfile.load import Options, load
from orchestrator.stackfile.model import Stack

REPO = Repo(name="shop", url="/shop", branch="main", previews=("feature/*", "fix-?"), preview_host="{branch}.p.example.org")


def loaded(folder: Path, text: str) -> Stack:
    (folder / "stack.yml").write_text(text)
    return load(Options(files=(str(folder / "stack.yml"),), project_name="shop-a"), {}).stack


def test_names_are_plain_short_and_never_the_same() -> None:
    assert slug("fix-1") == "fix-1"
    letters, rnd = "aB1/-_.é", random.Random(3)
    branches = {"".join(rnd.choices(letters, k=rnd.randint(1, 60))) for _ in range(5000)}
    names = {slug(b) for b in branches}
    assert len(names) == len(branches)
    assert all(len(n) <= LONGEST and n.strip("-") == n and n.replace("-", "").isalnum() and n.isascii() for n in names)


def test_branches_that_match_have_one_and_the_followed_one_has_none() -> None:
    branches = {"main": "1", "feature/a": "2", "feature/a/b": "3", "fix-1": "4", "fix-12": "5", "other": "6"}
    assert chosen(REPO, branches) == {"feature/a": "2", "feature/a/b": "3", "fix-1": "4"}
    with pytest.raises(PystackError, match="101 branches match"):
        chosen(REPO, {f"feature/{n}": "1" for n in range(MOST + 1)})
    one = child(REPO, "feature/a")
    assert (one.branch, one.previews, one.name) == ("feature/a", (), f"shop.{slug('feature/a')}")


def test_requests_have_previews_under_names_of_their_own() -> None:
    repo = Repo(name="shop", url="/shop", previews=("refs/pull/*/head", "refs/heads/feature/*"))
    refs = {f"refs/pull/{n}/head": str(n) for n in range(1, MOST + 20)}
    found = chosen(repo, {**refs, "refs/pull/7/merge": "x", "feature/a": "y", "other": "z"})
    assert "feature/a" in found
    numbers = sorted(int(name.split("/")[2]) for name in found if name != "feature/a")
    assert numbers == list(range(21, MOST + 20)), "the newest, and with the branch as many as there may be"
    assert slug("refs/pull/7/head").startswith("pull-7-")
    assert len({slug(b) for b in ("refs/pull/7/head", "pull/7", "pull-7", "refs/pull/7/merge")}) == 4


def test_a_commit_older_than_its_time_brings_nothing_up() -> None:
    commit = Commit(id="1", author="a", date="2026-01-01T00:00:00+02:00", subject="s")
    late = datetime.datetime(2026, 1, 1, 0, 0, tzinfo=datetime.UTC)
    one = child(Repo(name="r", url="/r", preview_ttl_s=3600.0), "refs/pull/7/head")
    new = SyncState()
    assert too_old(one, new, commit, late)
    assert not too_old(one, new, commit, late - datetime.timedelta(hours=1, minutes=30))
    assert not too_old(Repo(name="r", url="/r", preview_ttl_s=3600.0), new, commit, late), "a repository that is no preview"
    known = SyncState(newest=SyncOutcome(commit=commit, phase="good", at="2026-01-01T00:00:00+00:00"))
    assert not too_old(one, known, commit, late), "one that is up goes by the time since its outcome"


def test_one_whose_newest_commit_is_old_has_expired() -> None:
    commit = Commit(id="1", author="a", date="", subject="s")
    state = SyncState(newest=SyncOutcome(commit=commit, phase="good", at="2026-01-01T00:00:00+00:00"))
    repo = Repo(name="r", url="/r", preview_ttl_s=3600.0)
    at = datetime.datetime(2026, 1, 1, 0, 59, tzinfo=datetime.UTC)
    assert not has_expired(repo, state, at)
    assert has_expired(repo, state, at + datetime.timedelta(minutes=2))
    assert not has_expired(Repo(name="r", url="/r"), state, at + datetime.timedelta(days=900))


def test_it_shares_neither_hosts_nor_ports_nor_names(tmp_path: Path) -> None:
    text = (
        "services:\n  web:\n    image: i\n    container_name: web\n    ports: ['80:80']\n"
        "    x-ingress: [{host: shop.org, port: 80}]\n"
    )
    (web,) = as_preview(loaded(tmp_path, text), Preview(of="shop", slug="a", host="{branch}.p.org")).services
    assert (web.container_name, [p.published for p in web.container.ports]) == ("", [0])
    assert [r.host for r in web.ingress] == ["a.p.org"]
    with pytest.raises(PystackError, match=r"stack.yml:6:\d+: host shop.org is the other stack's"):
        as_preview(loaded(tmp_path, text), Preview(of="shop", slug="a"))


def test_what_would_be_shared_is_told_with_its_place(tmp_path: Path) -> None:
    text = (
        "services:\n  web: {image: i, volumes: ['data:/d'], x-ingress: [{host: a.org, port: 80}]}\n"
        "  api: {image: i, x-ingress: [{host: b.org, port: 80}]}\nvolumes:\n  data: {name: data}\n"
    )
    with pytest.raises(PystackError) as error:
        as_preview(loaded(tmp_path, text), Preview(of="shop", slug="a", host="{branch}.p.org"))
    assert "stack.yml:5:3: volume data has a name that all previews would share" in str(error.value)
    assert "a.p.org/ is that of" in str(error.value)
    both = text.replace("{name: data}", "{}")
    made = as_preview(loaded(tmp_path, both), Preview(of="shop", slug="a", host="{service}-{branch}.p.org"))
    assert sorted(r.host for s in made.services for r in s.ingress) == ["api-a.p.org", "web-a.p.org"]
