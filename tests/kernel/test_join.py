"""A machine that no server reaches becomes a node by a token, and is one like any other; whoever steals from it gets little."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

WEB = """
services:
  web:
    image: busybox
    command: sh -c "mkdir /w; hostname > /w/index.html; echo said; exec httpd -f -p 80 -h /w"
    stop_signal: SIGKILL
    restart: always
    deploy: {placement: {constraints: [node.labels.zone == far]}}
    networks: [wide]
  client:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    deploy: {placement: {constraints: [node.hostname == n2]}}
    networks: [wide]
networks: {wide: {driver: overlay}}
"""


def token(lab: Pystack, *words: str) -> str:
    return lab("node", "token", "create", *words).stdout.strip()


def root_of(lab: Pystack, machine: str) -> Path:
    return Path(f"/var/lib/pystack-lab/{lab.lab}/{machine}")


def join(lab: Pystack, machine: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    program = (sys.executable, "-m", "orchestrator", "agent", "join", *words)
    return lab(
        "lab", "exec", "--name", lab.lab, machine, "--", "env", f"PYSTACK_ROOT={root_of(lab, machine)}", *program, check=check
    )


def states(lab: Pystack) -> dict[str, str]:
    listed = lab("node", "ls", "--format", "json", check=False)
    return {r["name"]: r["state"] for r in json.loads(listed.stdout)} if not listed.returncode else {}


def wait_until_ready(lab: Pystack, within_s: float = 20) -> None:
    def ready() -> None:
        assert states(lab) == dict.fromkeys(("n1", "n2", "n3"), "ready")

    eventually(ready, within_s)


def close_ssh(lab: Pystack, machine: str) -> None:
    """Let nobody reach the SSH server of *machine*: it is behind NAT, or has none."""
    for words in (
        "add table inet closed",
        "add chain inet closed in { type filter hook input priority -10 ; }",
        "add rule inet closed in tcp dport 22 drop",
    ):
        lab.on(machine, "nft", words)


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    """n1 is the server, n2 a node over SSH; n3 is reached by nobody, and joined by a token."""
    with cluster_of(3) as pystack:
        pystack("node", "rm", "n3")
        close_ssh(pystack, "n3")
        assert join(pystack, "n3", token(pystack, "--label", "zone=far")).stdout == "n3\n"
        wait_until_ready(pystack)
        yield pystack


def test_it_runs_tasks_like_any_other_node(lab: Pystack, stack: Stack, tmp_path: Path) -> None:
    """Manifests, statuses, the image, logs, exec with both ends of its streams, files, and the overlay network."""
    stack.up(WEB)
    assert {name: row["node"] for name, row in stack.ps().items()} == {"web-1": "n3", "client-1": "n2"}
    assert "said" in stack.run("logs", "web").stdout
    inside = stack.run("exec", "-T", "web", "sh", "-c", "cat; exit 3", stdin="there and back", check=False)
    assert (inside.returncode, inside.stdout) == (3, "there and back")
    many = "".join(f"{n:08d}\n" for n in range(400_000))
    assert stack.run("exec", "-T", "web", "sh", "-c", "cat; cat", stdin=many).stdout == many
    (tmp_path / "sent").write_text(many)
    stack.run("cp", str(tmp_path / "sent"), "web:/srv/sent")
    stack.run("cp", "web:/srv/sent", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == many
    assert stack.exec("client", "wget", "-qO-", "http://web/").strip()
    assert "web" in stack.run("stats").stdout
    assert [c["detail"] for c in lab.json("doctor", "--format", "json") if not c["ok"]] == []


def test_a_shell_that_is_left_ends_there(lab: Pystack, stack: Stack) -> None:
    """A client that goes away takes its side of the stream along, and the node learns of it."""
    stack.up(WEB)
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "logs", "-f", "-p", stack.name, "web"],
        env=lab.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as follower:
        assert follower.stdout is not None
        assert "said" in follower.stdout.readline()
        count = len(_streams(lab))
        follower.kill()
    eventually(lambda: _less(len(_streams(lab)), count))


def _streams(lab: Pystack) -> list[str]:
    """Connections to the agent's socket of n3."""
    return [line for line in lab.on("n3", "ss", "-xHn").splitlines() if f"{root_of(lab, 'n3')}/run/docker.sock" in line]


def _less(found: int, than: int) -> None:
    assert found < than


@pytest.mark.parametrize(("kind", "words"), [("kill", ("n3", "agent")), ("kill", ("n1", "server"))])
def test_a_kill_of_either_end_leaves_the_container(lab: Pystack, stack: Stack, kind: str, words: tuple[str, ...]) -> None:
    stack.up(WEB)
    before = {name: row["id"] for name, row in stack.ps().items()}
    lab("lab", "fault", "--name", lab.lab, kind, *words)
    wait_until_ready(lab)
    eventually(lambda: _same({name: row["id"] for name, row in stack.ps().items()}, before))
    assert stack.exec("web", "echo", "here") == "here\n"


def _same(found: object, wanted: object) -> None:
    assert found == wanted


@pytest.mark.long
def test_a_cut_of_30_s_is_nothing_but_a_pause(lab: Pystack, stack: Stack) -> None:
    stack.up(WEB)
    before = {name: row["id"] for name, row in stack.ps().items()}
    lab("lab", "fault", "--name", lab.lab, "cut", "n3")
    begun = time.monotonic()
    try:
        eventually(lambda: _same(states(lab).get("n3"), "down"), 15)
        time.sleep(max(0.0, begun + 30 - time.monotonic()))
    finally:
        lab("lab", "fault", "--name", lab.lab, "heal", "n3")
    wait_until_ready(lab, 25)
    eventually(lambda: _same({name: row["id"] for name, row in stack.ps().items()}, before))
    running = lab.on("n3", "pgrep", "-fc", "httpd -f -p 80").strip()
    assert running == "1"


def test_what_is_wrong_with_a_token_is_said(lab: Pystack) -> None:
    """One that is used, one that has ended, one of no cluster, one of another, and what is none."""
    again = join(lab, "n3", token(lab), check=False)
    assert again.returncode == 1
    assert "this machine is node n3 of a cluster already: `pystack node rm` there lets it go" in again.stderr
    good = token(lab, "--name", "gone")
    lab("node", "token", "rm", "gone")
    short = token(lab, "--hours", "0.0001")
    authority, _, rest = good.removeprefix("pystack_join_").partition(".")
    wrong = f"pystack_join_{'A' * len(authority)}.{rest}"
    time.sleep(0.5)
    for text, why in (
        (good, "this cluster does not know that token"),
        (short, "ended at"),
        (wrong, f"its authority is {authority}, and the token's is {'A' * 43}"),
        (good.replace("10.99.0.1:2377", "10.99.0.1:9"), "Connection refused"),
        (good.partition("@")[0], "that is not TOKEN@SERVER[:PORT]"),
        (good.replace("10.99.0.1:2377", "10.99.0.1:0"), "is not the address of a server"),
    ):
        refused = _outside(lab, text)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert why in refused.stderr, refused.stderr
        assert "Traceback" not in refused.stderr
    late = lab("node", "token", "create", "--hours", "100000", check=False)
    assert late.returncode == 1
    assert "holds at most" in late.stderr
    rows = lab.json("node", "token", "ls", "--format", "json")
    assert [r["nodes"] for r in rows if r["problem"].startswith("was used")] == [["n3"]]
    assert not any("join" in r and r["join"] for r in rows)


def _outside(lab: Pystack, *words: str) -> subprocess.CompletedProcess[str]:
    """Join from a machine that has no agent: `outside`."""
    return join(lab, "outside", *words, check=False)


SECRETS = """
services:
  far:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    secrets: [ours]
    environment: {WORD: of-the-far-node}
    deploy: {placement: {constraints: [node.labels.zone == far]}}
  near:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    secrets: [theirs]
    environment: {WORD: of-the-near-node}
    deploy: {placement: {constraints: [node.hostname == n2]}}
secrets:
  ours: {file: ./ours}
  theirs: {file: ./theirs}
"""


def thief(lab: Pystack, file: Path, *words: str) -> dict[str, object]:
    """What the thief gets who stands on the machine `outside`."""
    program = (sys.executable, "-m", "tests.kernel.thief", str(file), "10.99.0.1:2377", *words)
    done = subprocess.run(
        ["nsenter", "-t", lab.pid("outside"), "-n", *program], capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def stolen(lab: Pystack, folder: Path) -> Path:
    copy = folder / "uplink.json"
    copy.write_bytes((root_of(lab, "n3") / "uplink.json").read_bytes())
    return copy


def test_a_thief_gets_what_that_node_gets_and_no_more(lab: Pystack, stack: Stack, tmp_path: Path) -> None:
    """Neither another node's manifest or secrets, nor the server's API, nor another node's name; nor is it a server."""
    for name in ("ours", "theirs"):
        (stack.directory / name).write_text(f"the secret {name}")
    stack.up(SECRETS)
    assert (root_of(lab, "n3") / "uplink.json").stat().st_mode & 0o777 == 0o600
    file = stolen(lab, tmp_path)
    ids = {r["name"]: r["id"] for r in lab.json("node", "ls", "--format", "json")}
    assert "is not by the cluster's authority" in str(thief(lab, file, "be_a_server")["error"])
    answers = thief(lab, file, "ask_the_server")["answers"]
    assert isinstance(answers, list)
    assert not any("n2" in one or "HTTP/1.1 200" in one for one in answers)
    listened = str(thief(lab, file, "listen")["got"])
    assert "of-the-far-node" in listened  # it stood in the node's place
    assert "of-the-near-node" not in listened
    assert "the secret" not in listened
    wait_until_ready(lab, 30)
    assert thief(lab, file, "request_as_another", ids["n2"]) == {"for": ids["n3"], "name": "n3"}
    # the node's own certificate is the one that holds until the thief's comes; then it is known that there are two
    lab("node", "rotate", "n3")
    wait_until_ready(lab, 30)
    assert "was exchanged for another one" in str(thief(lab, file, "listen")["error"])
    eventually(lambda: _same(stack.run("exec", "-T", "far", "cat", "/run/secrets/ours").stdout, "the secret ours"))


def test_a_certificate_is_exchanged_and_the_old_one_worth_nothing(lab: Pystack, stack: Stack, tmp_path: Path) -> None:
    stack.up(WEB)
    before = {name: row["id"] for name, row in stack.ps().items()}
    file = stolen(lab, tmp_path)
    lab("node", "rotate", "n3")
    assert json.loads(file.read_bytes())["key"] not in (root_of(lab, "n3") / "uplink.json").read_text()
    wait_until_ready(lab)
    eventually(lambda: _same(stack.exec("web", "echo", "here", check=False), "here\n"))
    assert {name: row["id"] for name, row in stack.ps().items()} == before
    for what in ("listen", "ask_the_server"):
        assert "the certificate of node n3 was exchanged for another one" in str(thief(lab, file, what)["error"])
    assert "exchanged" in str(thief(lab, file, "request_as_another", "n2")["error"])
    refused = lab("node", "rotate", "n2", check=False)
    assert "n2 did not join by a token" in refused.stderr


def test_a_node_that_is_removed_is_refused_at_once(lab: Pystack, stack: Stack, tmp_path: Path) -> None:
    """Its containers go, it dials no more, and what was copied from it before opens nothing."""
    stack.up(WEB)
    file = stolen(lab, tmp_path)
    try:
        refused = lab("node", "rm", "n3", check=False)
        assert "node n3 has 1 tasks" in refused.stderr
        lab("node", "rm", "--force", "n3")
        assert not (root_of(lab, "n3") / "uplink.json").exists()
        eventually(lambda: _same(lab.on("n3", "pgrep", "-fc", "httpd -f -p 80", check=False).strip(), "0"))
        for words in (("listen",), ("ask_the_server",), ("request_as_another", "n2")):
            assert "it was removed" in str(thief(lab, file, *words)["error"])
        lab("lab", "fault", "--name", lab.lab, "kill", "n3", "agent")
        time.sleep(2)
        assert "n3" not in states(lab)
    finally:
        if "n3" not in states(lab):
            join(lab, "n3", token(lab, "--label", "zone=far"))
            wait_until_ready(lab)


AGAIN = """
import asyncio, sys
from agent import joining
from agent.contract.joining import Invitation
from agent.errors import AgentError
from agent.uplink import new_key

async def ask() -> None:
    invitation, key = Invitation.parse(sys.argv[1]), new_key()
    options = joining.JoinOptions(join=sys.argv[1], name="twice")
    for _ in range(2):
        print((await joining._ask_server(invitation.servers[0], invitation, options, key)).name)

try:
    asyncio.run(ask())
except AgentError as error:
    sys.exit(str(error))
"""


def test_a_machine_killed_before_it_had_its_answer_is_the_same_node(lab: Pystack) -> None:
    """It asks again with the key that it has kept: one node, and one use of the token."""
    text = token(lab, "--name", "for-one")
    try:
        assert lab.on("outside", sys.executable, "-c", AGAIN, text) == "twice\ntwice\n"
        rows = {r["name"]: r for r in lab.json("node", "token", "ls", "--format", "json")}
        assert (rows["for-one"]["uses"], rows["for-one"]["nodes"]) == (0, ["twice"])
        assert states(lab)["twice"] == "down"
        used = lab("lab", "exec", "--name", lab.lab, "outside", "--", sys.executable, "-c", AGAIN, text, check=False)
        assert "token for-one was used, by twice" in used.stderr  # another key is another machine
    finally:
        lab("node", "rm", "twice")


def test_an_agent_joins_when_it_starts_and_by_one_token_once(lab: Pystack, tmp_path: Path) -> None:
    """As cloud-init has it. Removed, it stays away, though its token would let it in."""
    file, root = tmp_path / "join", tmp_path / "root"
    file.write_text(token(lab, "--uses", "3") + "\n")
    root.mkdir()
    program = ("env", f"PYSTACK_ROOT={root}", f"PYSTACK_JOIN={file}", sys.executable, "-m", "agent")
    words = [sys.executable, "-m", "orchestrator", "lab", "exec", "--name", lab.lab, "outside", "--", *program]
    agent = subprocess.Popen(words, env=lab.environment, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: _same(states(lab).get("outside"), "ready"), 40)
        assert (root / "uplink.json").exists()
        lab("node", "rm", "outside")
        assert not (root / "uplink.json").exists()
        agent.terminate()
        agent.wait(30)
        agent = subprocess.Popen(words, env=lab.environment, stderr=subprocess.DEVNULL)
        eventually(lambda: _same((root / "run/docker.sock").exists(), True), 20)
        time.sleep(3)
        assert "outside" not in states(lab)
    finally:
        agent.terminate()
        agent.wait(30)
        if "outside" in states(lab):
            lab("node", "rm", "--force", "outside")


@pytest.mark.long
def test_a_node_removed_while_it_was_away_learns_of_it(lab: Pystack, stack: Stack) -> None:
    """It is let in for nothing else, stops what it ran, and dials no more."""
    stack.up(WEB)
    lab("lab", "fault", "--name", lab.lab, "cut", "n3")
    try:
        eventually(lambda: _same(states(lab).get("n3"), "down"), 20)
        lab("node", "rm", "--force", "n3")
        assert lab.on("n3", "pgrep", "-fc", "httpd -f -p 80").strip() == "1"
        lab("lab", "fault", "--name", lab.lab, "heal", "n3")
        eventually(lambda: _same((root_of(lab, "n3") / "uplink.json").exists(), False), 40)
        eventually(lambda: _same(lab.on("n3", "pgrep", "-fc", "httpd -f -p 80", check=False).strip(), "0"))
        assert "n3" not in states(lab)
    finally:
        lab("lab", "fault", "--name", lab.lab, "heal", "n3")
        if "n3" not in states(lab):
            join(lab, "n3", token(lab, "--label", "zone=far"))
        wait_until_ready(lab, 30)


def test_of_two_that_have_a_nodes_certificate_neither_is_let_in(lab: Pystack, tmp_path: Path) -> None:
    """The thief renews it first, and is the node from then on: until the node comes with what it has."""
    wait_until_ready(lab)
    file = stolen(lab, tmp_path)
    try:
        got = thief(lab, file, "take_the_place")
        assert float(str(got["held_s"])) < 60
        assert "node n3 is locked out" in str(got["again"])
        assert "somebody has a copy" in str(got["again"])
        assert "locked out" in str(thief(lab, file, "listen")["error"])
        (found,) = [c for c in json.loads(lab("doctor", "--format", "json", check=False).stdout) if c["check"] == "certificate"]
        assert (found["target"], found["ok"]) == ("n3", False)
        assert "its place was held from 10.99.0." in found["detail"]
        assert "locked out" in lab("node", "rotate", "n3", check=False).stderr
        assert states(lab)["n3"] != "ready"
    finally:
        lab("node", "rm", "--force", "n3")
        eventually(lambda: _same((root_of(lab, "n3") / "uplink.json").exists(), False), 60)
        join(lab, "n3", token(lab, "--label", "zone=far"))
        wait_until_ready(lab)
