"""The pages of the guide, typed as they stand, each in a cluster of three hosts that has what the page speaks of."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack, cluster_of, eventually
from tests.registry_server import HOST, registry_at

pytestmark = pytest.mark.long

GUIDE = Path(__file__).parents[2] / "docs/guide"
ELSEWHERE = {
    "pystack cluster restore cluster.backup --node n2=root@10.0.0.12 --node n3=root@10.0.0.13": "test_cluster_backup.py",
    "pystack server --web https://0.0.0.0:8443": "test_access.py",
    "pystack server --listen-nodes tcp://0.0.0.0": "test_join.py",
    "pystack node token create --uses 20 --hours 24 --label zone=b": "test_join.py",
    "pystack agent join pystack_join_RxWU…@10.0.0.1:2377": "test_join.py",
    "pystack server init --advertise root@10.0.0.1": "test_managed_servers.py",
    "pystack server join root@10.0.0.1 --advertise root@10.0.0.2": "test_managed_servers.py",
    "pystack server join root@10.0.0.1,root@10.0.0.2 --advertise root@10.0.0.3": "test_managed_servers.py",
    "pystack server ls": "test_managed_servers.py",
    "pystack store recover --force-new": "test_managed_servers.py",
}
"""Lines that need a cluster of their own, and the test beside this one that types them."""
SHOP = """
name: shop
services:
  web:
    image: "REGISTRY/shop:${VERSION:-1}"
    command: [httpd, -f, -p, "80", -h, /srv]
    stop_signal: SIGKILL
    ports: ["8080:80"]
    healthcheck: {test: "wget -qO- http://127.0.0.1/second", interval: 1s}
    deploy: {replicas: 2, update_config: {order: start-first, monitor: 1s}}
  db:
    image: REGISTRY/shop:1
    command: sleep 100000
    stop_signal: SIGKILL
    volumes: ["data:/data"]
volumes:
  data: {x-volume: {follow: true}, x-backup: {to: PLACE, password: backups, cron: never}}
secrets: {backups: {external: true}}
"""
PUBLIC = """
name: BRANCH
services:
  web: {image: "REGISTRY/shop:1", command: sleep 100000, stop_signal: SIGKILL}
"""
KUBERNETES = {
    "deployment.yaml": """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: nginx, ports: [{containerPort: 80}]}]}
""",
    "service.yaml": """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
""",
}


def console_lines(page: Path) -> list[str]:
    """The commands of ours that *page* shows after a prompt."""
    blocks = re.findall(r"^```console\n(.*?)^```$", page.read_text(), re.S | re.M)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ pystack ")]


class Reader:
    """Somebody who types what the guide has, in the folder of the stack *shop*; *instead* has this cluster's words for those of
    the pages."""

    def __init__(self, pystack: Pystack, folder: Path) -> None:
        self.pystack, self.folder = pystack, folder
        self.instead: dict[str, str] = {}

    def words(self, line: str) -> list[str]:
        """The arguments that *line* has."""
        program, *words = shlex.split(line)
        assert program == "pystack"
        return [self.instead.get(word, word) for word in words]

    def __call__(self, line: str, *, check: bool = True, stdin: str = "") -> str:
        """What *line* prints."""
        return self.pystack(*self.words(line), check=check, stdin=stdin, cwd=self.folder, timeout=120).stdout

    def page(self, name: str, *, stdin: str = "") -> dict[str, str]:
        """Type each line of the page *name*; what each prints."""
        lines = (line for line in console_lines(GUIDE / f"{name}.md") if line not in ELSEWHERE)
        return {line: self(line, stdin=stdin) for line in lines}

    def address(self, node: str) -> str:
        """How the server reaches *node* over SSH."""
        rows = self.pystack.json("node", "ls", "--format", "json")
        return str(next(row["address"] for row in rows if row["name"] == node)).removeprefix("ssh://")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("guide") / "shop"
    (folder / "backups").mkdir(parents=True)
    with cluster_of(3) as pystack, registry_at(pystack, HOST):
        made = Reader(pystack, folder)
        configure(pystack)
        for tag in (f"{HOST}/shop:1", f"{HOST}/shop:2"):
            made(f"pystack image tag busybox {tag}")
            made(f"pystack image push {tag}")
        made("pystack secret create backups -", stdin="a long sentence")
        (folder / "stack.yml").write_text(SHOP.replace("REGISTRY", HOST).replace("PLACE", str(folder / "backups")))
        (folder / "docker-compose.yml").write_text("services: {web: {image: 'shop:1'}}\n")
        (folder / "password.txt").write_text("s3cret\n")
        for name, text in KUBERNETES.items():
            (folder / name).write_text(text)
        (folder / ".gitignore").write_text("*\n!stack.yml\n")
        git(folder, "init", "-q", "-b", "main")
        git(folder, "add", "-f", "stack.yml", ".gitignore")
        git(folder, "commit", "-qm", "one")
        made("pystack up")
        yield made


def configure(pystack: Pystack) -> None:
    """Each node knows the registry, and n1 whom to notify; their agents start again."""
    folder = Path(pystack.environment["PYSTACK_ROOT"]).parent
    notices = f"notify: {{commands: [{{words: [/usr/bin/tee, -a, {folder}/notices]}}]}}\n"
    for node in ("n1", "n2", "n3"):
        settings = f"registries: {{'{HOST}': {{insecure: true}}}}\n{notices if node == 'n1' else ''}"
        (folder / node / "config.yml").write_text(settings)
        pystack("lab", "fault", "--name", pystack.lab, "kill", node, "agent")
    eventually(lambda: _ready(pystack), 60)


def _ready(pystack: Pystack) -> None:
    rows = pystack("node", "ls", "--format", "json", check=False).stdout
    assert rows.count('"ready"') == 3


def _has(text: str, word: str) -> None:
    assert word in text


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, timeout=60)


def repository(folder: Path, name: str, stack: str, branch: str = "") -> str:
    """A bare repository with one commit of a file of *stack*, and with *branch* if it is not empty."""
    work, bare = folder / f"{name}-work", folder / f"{name}.git"
    (work / "prod").mkdir(parents=True)
    for place in (work / "stack.yml", work / "prod" / "stack.yml"):
        place.write_text(PUBLIC.replace("REGISTRY", HOST).replace("BRANCH", stack))
    git(work, "init", "-q", "-b", "main")
    git(work, "add", ".")
    git(work, "commit", "-qm", "one")
    if branch:
        git(work, "branch", branch)
    git(folder, "clone", "-q", "--bare", str(work), str(bare))
    return str(bare)


def access(reader: Reader, tmp_path: Path) -> None:
    said = reader.page("access", stdin="correct horse battery\ncorrect horse battery\n")
    assert re.search(r"pystack_\S{20}", said["pystack token create ci --role operator --stack 'shop-*' --days 90"])
    assert "ci" in said["pystack token ls"]
    assert "viewer" in said["pystack user ls"]
    assert "ada" in said["pystack audit-log"]
    reader("pystack user rm ada@example.org")


def checked(reader: Reader, tmp_path: Path) -> None:
    assert "differ" in "".join(reader.page("from-compose").values())
    assert "differ" in "".join(reader.page("from-swarm").values())


def kubernetes(reader: Reader, tmp_path: Path) -> None:
    (said,) = reader.page("from-k3s").values()
    assert "replicas: 2" in said


def gitops(reader: Reader, tmp_path: Path) -> None:
    infra = repository(tmp_path, "infra", "infra")
    shop = repository(tmp_path, "shop", "fair", "feature/prices")
    reader.instead |= {"https://git.example.org/infra.git": infra, "https://git.example.org/shop.git": shop}
    try:
        said = reader.page("gitops")
        assert "infra: good" in said["pystack gitops status infra"] + said["pystack gitops sync infra"]
        reader("pystack gitops sync shop")
        eventually(lambda: _has(reader("pystack ls"), "fair-feature-prices-"), 60)
    finally:
        for name in ("infra", "shop"):
            reader(f"pystack gitops rm {name}", check=False)
        for name in re.findall(r"^(?:fair|infra)\S*", reader("pystack ls"), re.M):
            reader(f"pystack down -p {name}", check=False)


def hosts(reader: Reader, tmp_path: Path) -> None:
    second, third = reader.address("n2"), reader.address("n3")
    for node in ("n2", "n3"):
        reader(f"pystack node drain {node}")
        reader(f"pystack node rm {node}")
    reader.instead |= {"root@10.0.0.2": second, "root@10.0.0.3": third}
    said = reader.page("hosts")
    assert said["pystack node ls"].count("ready") == 3
    assert "n3" not in reader("pystack node ls"), "the page lets it go"
    reader(f"pystack node add {third}")


def install(reader: Reader, tmp_path: Path) -> None:
    reader.instead |= {"root@10.0.0.2": reader.address("n2"), "root@10.0.0.3": reader.address("n3")}
    home = Path(reader.pystack.environment["PYSTACK_ROOT"]) / "home/.ssh"
    (tmp_path / "ssh_config").write_text(f"IdentityFile {home}/id_ed25519\nUserKnownHostsFile {home}/known_hosts\n")
    # on a host of the cluster, which reaches the others, and as somebody who may log in there
    way = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/ssh/ssh_config; exec "$@"', str(tmp_path / "ssh_config")]
    for line in console_lines(GUIDE / "install.md"):
        said = reader.pystack.on("n1", *way, sys.executable, "-m", "orchestrator", *reader.words(line))
        assert "checks are well" in said


def networking(reader: Reader, tmp_path: Path) -> None:
    reader.page("networking")


def notify(reader: Reader, tmp_path: Path) -> None:
    reader.page("notify")
    notices = Path(reader.pystack.environment["PYSTACK_ROOT"]).parent / "notices"
    eventually(lambda: _has(notices.read_text(), "test"), 30)


def operations(reader: Reader, tmp_path: Path) -> None:
    reader.pystack.environment["PYSTACK_PASSPHRASE"] = "correct horse battery"
    reader.page("operations")
    assert b"s3cret" not in (reader.folder / "cluster.backup").read_bytes()


def page(reader: Reader, tmp_path: Path) -> None:
    (line,) = (line for line in console_lines(GUIDE / "page.md") if line not in ELSEWHERE)
    words = [sys.executable, "-m", "orchestrator", *reader.words(line)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=reader.pystack.environment) as process:
        try:
            assert process.stdout
            address = process.stdout.readline().strip()
            with urllib.request.urlopen(address, timeout=20) as answer:
                assert b"<title>" in answer.read()
        finally:
            process.terminate()


def scheduling(reader: Reader, tmp_path: Path) -> None:
    why, why_not = reader.page("scheduling").values()
    assert "n3" in why
    assert "n3" in why_not


def secrets(reader: Reader, tmp_path: Path) -> None:
    said = reader.page("secrets")
    assert "db_password" in said["pystack secret ls"]


def storage(reader: Reader, tmp_path: Path) -> None:
    reader("pystack exec -T db sh -c 'echo one > /data/file'")
    for line in console_lines(GUIDE / "storage.md"):
        if line == "pystack volume move shop_data n2" and "n2" in _row(reader("pystack ps"), "db-1"):
            reader("pystack volume move shop_data n1")
        said = reader(line)
        if line == "pystack volume snapshots shop_data":
            reader.instead["1a2b3c4d"] = re.findall(r"\b[0-9a-f]{8}\b", said)[0]
    assert "n3" in _row(reader("pystack ps"), "db-1"), "the last restore was there"
    assert reader("pystack exec -T db cat /data/file") == "one\n"
    reader("pystack volume rm shop_old")


def _row(table: str, name: str) -> str:
    return next(row for row in table.splitlines() if name in row)


def trust(reader: Reader, tmp_path: Path) -> None:
    for line in console_lines(GUIDE / "trust.md"):
        if "harden" in line:
            assert "x-harden: strict" in reader(line.replace("http://127.0.0.1/", "http://127.0.0.1/second"))
        else:
            reader(line, check="audit" not in line)  # an audit ends with 1 where it finds something
    assert "sha256:" in (reader.folder / "stack.lock").read_text()
    (reader.folder / "stack.lock").unlink()


def updates(reader: Reader, tmp_path: Path) -> None:
    file = reader.folder / "stack.yml"
    file.write_text(file.read_text().replace("VERSION:-1", "VERSION:-2"))
    git(reader.folder, "commit", "-qam", "two")
    said = {}
    for line in console_lines(GUIDE / "updates.md"):
        said[line] = reader(line)
        if line == "pystack deploy":
            file.write_text(file.read_text().replace("sleep 100000", "sleep 200000"))
            git(reader.folder, "commit", "-qam", "three")
    assert "shop:2" in said["pystack plan"]
    assert "version 2" in said["pystack history"]
    history = reader("pystack history")
    assert "the new prices" in history
    assert "two" in history


PAGES: dict[str, Callable[[Reader, Path], None]] = {
    "access": access,
    "from-compose": checked,
    "from-swarm": checked,
    "from-k3s": kubernetes,
    "gitops": gitops,
    "hosts": hosts,
    "install": install,
    "networking": networking,
    "notify": notify,
    "operations": operations,
    "page": page,
    "scheduling": scheduling,
    "secrets": secrets,
    "storage": storage,
    "trust": trust,
    "updates": updates,
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_does_what_it_says(name: str, reader: Reader, tmp_path: Path) -> None:
    PAGES[name](reader, tmp_path)
    assert reader("pystack ps").count("running") >= 3, "the page leaves the stack as it was"


def test_each_line_of_the_guide_is_typed() -> None:
    shown = {page.stem: console_lines(page) for page in GUIDE.glob("*.md")}
    untyped = {stem for stem, lines in shown.items() if lines} - {*PAGES, "first-stack"}
    assert not untyped, "they have no test here (first-stack: test_first_stack.py)"
    every = [line for lines in shown.values() for line in lines]
    assert len(every) >= 70
    assert set(ELSEWHERE) <= set(every)
    for line, test in ELSEWHERE.items():
        typed = (Path(__file__).parent / test).read_text()
        assert all(f'"{word}"' in typed for word in line.split()[1:3] if not word.startswith("--")), line
