"""What users of other programs ask in public is found by the site's own search, typed in their words into a real Chromium."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually

if not (shutil.which("chromium") and shutil.which("chromedriver")):
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver")
# its sockets are closed when they are collected
pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]

ROOT = Path(__file__).parents[2]
FIRST = 3
"""Among so many results, which are all seen without scrolling, is the answer."""
ASKED = {
    # what is typed: where the answer is; a report of who asked, where one was read
    "client real ip address": "guide/questions/#how-do-i-get-the-clients-real-ip",  # moby/moby#25526
    "depends_on wait until healthy": "guide/questions/#does-depends_on-wait",  # moby/moby#40364
    "rebuild image on up": "guide/questions/#does-up-rebuild",  # docker/compose#1487
    "rebalance when a node comes back": "guide/questions/#are-tasks-rebalanced",  # moby/moby#24103
    "ufw published port": "guide/questions/#does-ufw",  # moby/moby#22054
    "privileged device gpu": "guide/devices/",  # moby/moby#24862
    "cron job schedule": "guide/questions/#how-do-i-run-a-cron-job",  # moby/moby#23880
    "log rotation max-size": "guide/questions/#where-do-logs-go",  # moby/moby#27957
    "remove volumes of a stack": "guide/questions/#how-do-i-remove-the-volumes",  # moby/moby#29158
    "rotate a secret": "guide/questions/#how-do-i-pass-secrets",  # moby/moby#34746
    "volume lost when service moves": "guide/questions/#what-happens-to-a-volume",  # moby/moby#33080
    "zero downtime update": "guide/updates/",
    "host.docker.internal": "guide/questions/#how-does-a-container-reach-the-host",
    "private registry login": "guide/questions/#how-do-i-log-in",
    "lost quorum restore": "guide/questions/#what-if-a-server-or-the-quorum",
    "container does not resolve service name": "guide/questions/#why-does-a-container-not-resolve",
    "disk full prune images": "guide/questions/#the-disk-is-full",
    "unhealthy container restart": "guide/questions/#what-happens-to-an-unhealthy",
    "memory limit out of memory killed": "guide/questions/#how-do-i-limit-memory",
    "rollback to previous version": "guide/questions/#how-do-i-roll-back",
    "drain a node for maintenance": "guide/questions/#how-do-i-drain",
    "run without root": "guide/rootless/",
    "environment variable substitution .env": "guide/questions/#how-do-env-files",
    "backup and restore volume": "guide/questions/#how-do-i-back-up",
}
RESULTS = """
    return [...document.querySelectorAll('.md-search-result__item')].slice(0, arguments[0]).map(
        item => [...item.querySelectorAll('a')].map(link => link.href))"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and writes no log."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The site, built anew and served. Yields its address."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, check=True)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield made
    made.quit()


@pytest.mark.parametrize("typed", ASKED)
def test_a_question_is_answered_by_one_of_the_first_results(site: str, browser: Any, typed: str) -> None:
    browser.get(f"{site}?{urllib.parse.urlencode({'q': typed}, quote_via=urllib.parse.quote)}")

    def found() -> list[list[str]]:
        groups: list[list[str]] = browser.execute_script(RESULTS, FIRST)
        assert groups, f"nothing is found for {typed!r}"
        return groups

    links = [urllib.parse.urlsplit(link)._replace(query="").geturl() for group in eventually(found, 30) for link in group]
    assert any(link.removeprefix(site).startswith(ASKED[typed]) for link in links), links
