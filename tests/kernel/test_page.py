"""The page in a real Chromium: what somebody does there, what a hostile name or line of a log does not, and what axe finds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, Pystack, cluster_of, eventually

if not (shutil.which("chromium") and shutil.which("chromedriver")):
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver")
By = pytest.importorskip("selenium.webdriver.common.by").By
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
# its sockets are closed when they are collected
pytestmark = [pytest.mark.long, pytest.mark.kernel, pytest.mark.filterwarnings("ignore::ResourceWarning")]

PASSWORD = "green tea at four"
EVIL = "<img src=x onerror=window.pwned=1>"
SHOP = """
name: shop
services:
  web:
    image: busybox
    command: ["sh", "-c", "n=0; while true; do echo \\"line $$n {evil}\\"; n=$$((n+1)); sleep 0.2; done"]
    labels: {{note: "{evil}"}}
    stop_grace_period: 0s
    deploy: {{replicas: {replicas}}}
  broken: {{image: busybox, command: ["sh", "-c", "echo '{evil}'; exit 3"], restart: "no"}}
"""
TEA = "name: tea\nservices:\n  pot: {{image: busybox, command: sleep 1000, stop_grace_period: 0s, deploy: {{replicas: {}}}}}\n"


def shop(replicas: int) -> str:
    return SHOP.format(evil=EVIL, replicas=replicas)


class Page:
    """A browser at the page. Its methods wait, and fail with what is there instead."""

    def __init__(self, driver: Any, base: str) -> None:
        self.driver, self.base = driver, base

    def go(self, place: str) -> None:
        self.driver.execute_script("location.hash = arguments[0]", place)

    def text(self) -> str:
        return str(self.driver.execute_script("return document.body.innerText"))

    def until(self, check: Callable[[], Any], within_s: float = 20) -> Any:
        def checked() -> Any:
            found = check()
            assert found, self.text()[:3000]
            return found

        return eventually(checked, within_s)

    def shows(self, *words: str) -> None:
        self.until(lambda: all(word in self.text() for word in words))

    def click(self, words: str, within: str = "main, dialog, form, aside") -> None:
        """The button or link with exactly these words or that label, as soon as it is there."""
        script = """
            const [words, within] = arguments;
            for (const place of [...document.querySelectorAll(within)].reverse())
              for (const one of place.querySelectorAll('button, a, summary'))
                if ([one.innerText.trim(), one.ariaLabel].includes(words) && !one.disabled && one.offsetParent !== null)
                  return one;
            return null;"""
        self.until(lambda: self.driver.execute_script(script, words, within)).click()

    def type(self, label: str, text: str) -> None:
        script = """
            for (const one of document.querySelectorAll('label'))
              if (one.innerText.trim() === arguments[0]) return document.getElementById(one.htmlFor);
            return null;"""
        field = self.until(lambda: self.driver.execute_script(script, label))
        field.clear()
        field.send_keys(text)

    def choose(self, label: str, option: str) -> None:
        script = """
            const one = document.querySelector(`select[aria-label="${arguments[0]}"]`);
            if (![...one.options].some((o) => o.value === arguments[1])) return false;
            one.value = arguments[1];
            return one.dispatchEvent(new Event('change'));"""
        self.until(lambda: self.driver.execute_script(script, label, option))

    def serious(self, axe: str) -> list[Any]:
        """What axe finds here that is serious or worse."""
        self.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": axe})  # the page's own policy lets no script in
        found = self.driver.execute_async_script(
            "const end = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then((r) => end(r.violations))"
        )
        return [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]


@contextmanager
def ui(cluster: Pystack) -> Iterator[str]:
    """The address that `pystack ui` prints, as long as that runs."""
    command = [sys.executable, "-m", "orchestrator", "ui", "--no-open"]
    shown = subprocess.Popen(command, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert shown.stdout
    try:
        yield shown.stdout.readline().strip()
    finally:
        shown.terminate()
        shown.wait(10)
        shown.stdout.close()


@contextmanager
def chromium(folder: Path) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,900"):
        options.add_argument(word)
    options.add_argument(f"--user-data-dir={folder}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    made.set_script_timeout(30 * PATIENCE)
    try:
        yield made
    finally:
        made.quit()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Pystack]:
    with cluster_of(2) as made:
        yield made


@pytest.fixture(scope="module")
def page(cluster: Pystack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Signed in by a link, at a cluster in which a stack runs of which one service does not."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "stack.yml").write_text(shop(2))
    cluster("up", "-f", str(folder / "stack.yml"), "--no-wait")
    with ui(cluster) as address, chromium(folder / "profile") as driver:
        driver.get(address)
        made = Page(driver, address.partition("#")[0])
        made.shows("Overview", "tasks running")
        assert "code=" not in driver.current_url
        yield made


@pytest.fixture(autouse=True)
def screenshot(request: pytest.FixtureRequest, page: Page) -> Iterator[None]:
    """With PYSTACK_SCREENSHOTS, how the page looked at the end of each test, in that folder."""
    yield
    if folder := os.environ.get("PYSTACK_SCREENSHOTS"):
        page.driver.save_screenshot(f"{folder}/{request.node.name}.png")


def test_a_failure_is_seen_with_its_reason_and_its_log(page: Page) -> None:
    page.go("#/")
    page.shows("Needs attention", "shop-broken-1", "ended with status 3")
    page.driver.find_element(By.PARTIAL_LINK_TEXT, "shop-broken-1").click()
    page.shows("It ended with status 3.", EVIL)


def test_logs_follow_and_are_no_markup(page: Page) -> None:
    page.go("#/tasks/shop/shop-web-1/logs")
    page.shows(f"line 1 {EVIL}")

    def count() -> int:
        return int(page.driver.execute_script("return document.querySelectorAll('.log > div').length"))

    before = page.until(count)
    page.until(lambda: count() > before)
    page.go("#/stacks/shop/definition")
    page.shows(EVIL)
    page.go("#/events")
    page.shows("shop-web-1")
    assert page.driver.execute_script("return window.pwned") is None
    assert page.driver.execute_script("return document.querySelectorAll('main img').length") == 0


def test_a_shell_in_a_task(page: Page) -> None:
    page.go("#/tasks/shop/shop-web-1/shell")
    page.shows("A shell in shop-web-1")
    terminal = page.driver.find_element(By.CSS_SELECTOR, ".xterm-helper-textarea")
    terminal.send_keys("echo answer $((6*7))", Keys.ENTER)
    page.until(lambda: "answer 42" in page.driver.find_element(By.CSS_SELECTOR, ".xterm-rows").text)
    page.go("#/")


def test_plan_apply_and_roll_back(page: Page, cluster: Pystack) -> None:
    page.go("#/plan")
    page.type("Stack file", "name: tea\nservices:\n  pot: {imag: busybox}\n")
    page.click("Make the plan")
    page.shows("stack.yml:3", "imag")
    for replicas in (1, 2):
        page.type("Stack file", TEA.format(replicas))
        page.click("Make the plan")
        page.shows("Plan of tea", f"create task tea-pot-{replicas}", "Exactly this is done")
        page.click(f"Apply these {3 - replicas} steps")
        page.shows("Done.", "See tea")
    page.go("#/stacks/tea/history")
    page.click("Roll back to revision 1")
    page.shows("Roll tea back to revision 1?", "remove task tea-pot-2")
    page.click("Roll back", within="dialog")
    page.shows("Rolling tea back", "Done.")
    page.click("Close", within="dialog")
    eventually(lambda: _equal([r["task"] for r in cluster.json("ps", "-p", "tea", "--format", "json")], ["tea-pot-1"]))
    lines = cluster.json("audit-log", "--stack", "tea", "--format", "json")
    assert [(one["user"], one["way"], one["outcome"]) for one in lines[-3:]] == [("root", "session", "done")] * 3


def _equal(found: object, wanted: object) -> None:
    assert found == wanted


def test_a_node_is_drained_and_activated(page: Page) -> None:
    page.go("#/nodes/n2")
    page.click("Drain")
    page.click("Drain", within="dialog")
    # when it has ended, well or not: a stack that moves starts its broken task again
    page.click("Close", within="dialog")
    page.until(lambda: "No task here" in page.text())
    page.click("Activate")
    page.shows("n2 takes tasks again")


def drawn(page: Page) -> int:
    """How many graphs have a line by now."""
    script = """return [...document.querySelectorAll('.chart .line')]
        .filter((line) => (line.getAttribute('points') ?? '').includes(' ')).length"""
    return int(page.driver.execute_script(script))


def test_what_each_service_uses_is_drawn(page: Page) -> None:
    page.go("#/stacks/shop")
    page.click("Graphs")
    page.shows("web", "CPU, cores, web", "Network in, a second, web")
    page.until(lambda: drawn(page) >= 4)


def test_what_a_node_uses_is_drawn(page: Page) -> None:
    page.go("#/nodes/n1")
    page.shows("What its tasks use", "CPU, cores")
    page.until(lambda: drawn(page) == 4)


def test_what_a_task_uses_is_drawn(page: Page) -> None:
    page.go("#/tasks/shop/shop-web-1/graphs")
    page.until(lambda: drawn(page) == 6)


def test_why_a_task_is_where_it_is(page: Page) -> None:
    page.go("#/tasks/shop/shop-web-1/why")
    page.shows("What every node was found to be good for", "n1", "n2", "here")


def test_why_a_service_is_not_on_a_node(page: Page, cluster: Pystack) -> None:
    cluster("node", "drain", "n2")
    try:
        page.go("#/nodes/n2")
        page.shows("Why, or why not, here")
        page.choose("Service", "shop/web")
        page.shows("does not fit", "availability")
    finally:
        cluster("node", "activate", "n2")


def test_lines_of_a_log_are_filtered(page: Page) -> None:
    page.go("#/tasks/shop/shop-web-1/logs")
    page.shows("line 3 ")
    page.driver.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("line 3 ")
    shown = "return [...document.querySelectorAll('.log > div')].filter((d) => !d.hidden).map((d) => d.innerText)"
    page.until(lambda: all("line 3 " in one for one in page.driver.execute_script(shown)))
    assert page.driver.execute_script(shown)


def test_a_stack_is_stopped_started_and_restarted(page: Page) -> None:
    page.go("#/stacks/tea")
    for word, state in (("Stop", "stopped"), ("Start", "healthy"), ("Restart", "healthy")):
        page.click(word)
        page.shows(f"{word} tea?")
        page.click(word, within="dialog")
        page.shows("Done.")
        page.click("Close", within="dialog")
        page.until(lambda state=state: state in page.driver.find_element(By.TAG_NAME, "h1").text)  # type: ignore[misc]


def test_a_question_that_is_cancelled_does_nothing(page: Page, cluster: Pystack) -> None:
    page.go("#/stacks/tea")
    page.click("Take down")
    page.shows("Take down tea?")
    page.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    page.until(lambda: not page.driver.find_elements(By.TAG_NAME, "dialog"))
    assert [r["task"] for r in cluster.json("ps", "-p", "tea", "--format", "json")] == ["tea-pot-1"]


def test_the_topology_of_a_stack_is_drawn(page: Page) -> None:
    page.go("#/stacks/shop/networks")
    page.until(lambda: page.driver.find_elements(By.CSS_SELECTOR, "main svg text"))
    words = page.driver.execute_script(
        "return [...document.querySelectorAll('main svg text')].map((t) => t.textContent).join(' ')"
    )
    for word in ("web", "n1", "shop_default"):
        assert word in words


def test_images_and_volumes_are_listed(page: Page) -> None:
    page.go("#/images")
    page.shows("busybox", "n1")
    page.go("#/volumes")
    page.shows("No volume")


def test_doctor_and_the_log_of_changes_are_read(page: Page) -> None:
    page.go("#/doctor")
    page.shows("checks are well")
    page.go("#/access")
    page.shows("Log of changes", "root", "tea")


def test_keys_alone_lead_to_a_task(page: Page) -> None:
    page.go("#/")
    page.shows("Overview")
    page.driver.execute_script("document.querySelector('.skip').focus()")
    assert page.driver.switch_to.active_element.text == "Skip to the content"
    for words, place in (("Stacks", "#/stacks"), ("shop", "#/stacks/shop"), ("shop-web-1", "#/tasks/shop/shop-web-1")):
        for _ in range(60):
            if page.driver.switch_to.active_element.text.strip() == words:
                break
            page.driver.switch_to.active_element.send_keys(Keys.TAB)
        focus = page.driver.switch_to.active_element
        assert focus.text.strip() == words
        outline = page.driver.execute_script("return getComputedStyle(arguments[0]).outlineStyle", focus)
        assert outline != "none", "who uses keys sees where they are"
        focus.send_keys(Keys.ENTER)
        page.until(lambda place=place: page.driver.execute_script("return location.hash") == place)  # type: ignore[misc]
        page.shows("shop")


def test_a_narrow_screen_has_a_menu_and_no_sideways_scrolling(page: Page) -> None:
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        for place, words in {
            "#/": "Overview",
            "#/stacks/shop": "shop-web-1",
            "#/nodes/n1": "CPU, cores",
            "#/plan": "Plan",
        }.items():
            page.go(place)
            page.shows(words)
            assert page.driver.execute_script("return document.documentElement.scrollWidth") <= 390, place
        page.click("Menu")
        page.click("Nodes", within="nav")
        page.shows("n1", "n2")
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_dark_is_kept(page: Page) -> None:
    page.go("#/")
    page.click("Light or dark")
    theme = page.driver.execute_script("return document.documentElement.dataset.theme")
    page.driver.refresh()
    page.shows("Overview", "tasks running")
    assert page.driver.execute_script("return document.documentElement.dataset.theme") == theme
    page.click("Light or dark")


def test_a_stack_is_taken_down(page: Page, cluster: Pystack) -> None:
    page.go("#/stacks/tea")
    page.click("Take down")
    page.click("Take down", within="dialog")
    page.shows("Done.")
    page.click("Close", within="dialog")
    page.shows("This stack is down. Its history is kept.")
    assert cluster.json("ps", "-p", "tea", "--format", "json") == []


def test_nothing_is_hard_to_read_or_to_reach(page: Page) -> None:
    axe = (Path(pytest.importorskip("axe_core_python").__file__).parent / "axe.min.js").read_text()
    places = {
        "#/": "Overview", "#/stacks/shop": "shop-web-1", "#/stacks/shop/graphs": "CPU, cores, web", "#/nodes/n1": "CPU, cores",
        "#/tasks/shop/shop-web-1/graphs": "last 2 minutes", "#/nodes": "n1",
        "#/networks": "shop_default", "#/plan": "No plan yet", "#/doctor": "checks are well", "#/access": "Log of changes",
    }  # fmt: skip
    for theme in ("light", "dark"):
        page.driver.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
        for place, words in list(places.items())[: None if theme == "light" else 3]:
            page.go(place)
            page.shows(words)
            assert page.serious(axe) == [], (theme, place)
    page.driver.execute_script("document.documentElement.dataset.theme = 'light'")


def test_a_user_of_one_stack_sees_no_other_and_no_button(page: Page, cluster: Pystack, tmp_path: Path) -> None:
    cluster("user", "create", "ada", "--stack", "shop", "--password-stdin", stdin=f"{PASSWORD}\n")
    with chromium(tmp_path / "profile") as driver:
        driver.get(page.base)
        other = Page(driver, page.base)
        other.type("Name", "ada")
        other.type("Password", "red tea at four")
        other.click("Sign in")
        other.shows("wrong name or password")
        other.type("Password", PASSWORD)
        other.click("Sign in")
        other.shows("Overview", "viewer of shop")
        other.go("#/stacks/shop")
        other.shows("shop-web-1")
        assert not [b.text for b in driver.find_elements(By.CSS_SELECTOR, "main button")]
        other.go("#/stacks")
        other.shows("Stacks", "shop")
        assert "tea" not in other.text()
        refused = driver.execute_async_script("fetch('/v1/stacks/tea').then((r) => arguments[0](r.status))")
        assert refused == 403
        other.click("Sign out")
        other.shows("Sign in")


def test_the_browser_had_nothing_to_complain_of(page: Page) -> None:
    said = [one["message"] for one in page.driver.get_log("browser")]
    assert [
        one for one in said if "/v1/stackfile" not in one
    ] == []  # the file with a mistake, which is refused with 400 or 409


def test_only_the_pages_own_files_are_given(page: Page) -> None:
    for path in ("../api.py", "%2e%2e/api.py", "..%2fapi.py", "/etc/passwd", "vendor/../../api.py", "main.js%00", "views"):
        found = page.driver.execute_async_script(
            "fetch(arguments[0]).then((r) => arguments[1](r.status))", f"{page.base}{path}"
        )
        assert found == 404, path
    headers = page.driver.execute_async_script("fetch('/ui/').then((r) => arguments[0]([...r.headers]))")
    policy = dict(map(tuple, headers))["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_a_session_that_ended_with_its_server_is_said(page: Page, cluster: Pystack) -> None:
    page.go("#/")
    cluster("lab", "fault", "--name", cluster.lab, "kill", "n1", "server")
    eventually(lambda: _equal(cluster("node", "ls", check=False).returncode, 0), 60)
    page.until(lambda: "The session has ended." in page.text(), 60)
