"""`DOCKER_BUILDKIT=1 docker build`, with the client of Debian's docker.io and with buildx where that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Pystack
from tests.docker_clients import debian_docker
from tests.images import tar_of

pytestmark = pytest.mark.kernel
FILE = """FROM busybox AS base
ARG WORD=none
COPY . /app
RUN echo $WORD > /word
RUN --mount=type=secret,id=token wc -c < /run/secrets/token > /size
FROM base AS small
CMD ["cat", "/word", "/size"]
FROM base AS last
RUN exit 7
"""


class Client:
    """A `docker` with DOCKER_BUILDKIT=1."""

    def __init__(self, program: str, lab: Pystack, config: Path) -> None:
        self.program = program
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("DOCKER_", "BUILDX_", "BUILDKIT_"))} | {
            "DOCKER_HOST": f"unix://{lab.environment['PYSTACK_ROOT']}/run/docker.sock",
            "DOCKER_CONFIG": str(config),
            "DOCKER_BUILDKIT": "1",
        }

    def __call__(self, *words: str, code: int | None = 0, stdin: bytes = b"", **more: str) -> tuple[bytes, str]:
        done = subprocess.run(
            [self.program, *words],
            capture_output=True,
            input=stdin,
            env=self.environment | more,
            timeout=90 * PATIENCE,
            check=False,
        )
        said = done.stderr.decode()
        assert done.returncode == code or (code is None and done.returncode), f"{words}: {done.returncode}\n{said}"
        return done.stdout, said

    def build(self, *words: str, code: int | None = 0, stdin: bytes = b"", **more: str) -> str:
        """What is said of a build."""
        out, said = self("build", "--progress=plain", *words, code=code, stdin=stdin, **more)
        return out.decode() + said

    def image(self, *words: str, stdin: bytes = b"") -> str:
        """The ID of the image that a quiet build makes."""
        out = self("build", "-q", *words, stdin=stdin)[0].decode().strip()
        assert out.startswith("sha256:")
        return out


@pytest.fixture(scope="module", params=["docker.io", "buildx"])
def client(request: pytest.FixtureRequest, lab: Pystack, tmp_path_factory: pytest.TempPathFactory) -> Client:
    found = debian_docker() if request.param == "docker.io" else shutil.which("docker")
    if found is None:
        pytest.skip(f"there is no docker client of {request.param}")
    config = tmp_path_factory.mktemp("config")
    plugins = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "cli-plugins"
    if plugins.is_dir():
        (config / "cli-plugins").symlink_to(plugins)
    made = Client(str(found), lab, config)
    asked = subprocess.run([found, "buildx", "version"], env=made.environment, capture_output=True, check=False)
    if request.param == "buildx" and asked.returncode:
        pytest.skip("there is no buildx")
    return made


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "Dockerfile").write_text(FILE)
    (folder / ".dockerignore").write_text("*.log\n")
    (folder / "a.txt").write_text("seen")
    (folder / "a.log").write_text("hidden")
    (tmp_path / "token").write_text("s3cret")
    return folder


def test_arguments_target_secrets_ignored_files_and_cache(client: Client, app: Path) -> None:
    secret = f"id=token,src={app.parent / 'token'}"
    words = ("--secret", secret, "--build-arg", f"WORD={app}", "--target", "small", "-t", "bk:one", str(app))
    said = client.build(*words)
    assert "RUN echo $WORD" in said
    assert "CACHED" not in said
    assert client("run", "--rm", "bk:one")[0].decode().split() == [str(app), "6"]
    assert client("run", "--rm", "bk:one", "ls", "/app")[0].decode().split() == ["Dockerfile", "a.txt"]
    assert client.build(*words).count("CACHED") == 3
    assert b"s3cret" not in client("save", "bk:one")[0]


def test_only_files_that_differ_are_sent(client: Client, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY data /data\nRUN cat /data/* | wc -c\n")
    (tmp_path / "data").mkdir()
    for number in range(40):
        (tmp_path / "data" / str(number)).write_bytes(os.urandom(50_000))
    first = client.build(str(tmp_path))
    assert "2000000" in first
    (tmp_path / "data" / "7").write_bytes(b"x" * 10)
    (tmp_path / "data" / "8").unlink()
    second = client.build(str(tmp_path))
    assert "1900010" in second
    sizes = [line.split("transferring context")[1].split()[0] for line in second.splitlines() if "transferring context" in line]
    assert sizes[-1] in ("10B", "0.0s"), second


def test_a_run_that_fails(client: Client, app: Path) -> None:
    said = client.build("--secret", f"id=token,src={app.parent / 'token'}", str(app), code=None)
    assert "The command '/bin/sh -c exit 7' returned a non-zero code: 7" in said


def test_mistakes_are_told_with_their_place(client: Client, tmp_path: Path) -> None:
    said = client.build("-f", "-", str(tmp_path), stdin=b"FROM busybox\nFOO bar\n", code=None)
    assert "Dockerfile:2:1: unknown instruction: FOO" in said
    assert "no such file or directory" in client.build("-f", str(tmp_path / "None"), str(tmp_path), code=None)
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=secret,id=no,required=true true\n")
    assert "Dockerfile:2:1: secret no: not found" in client.build(str(tmp_path), code=None)


def test_files_as_the_result(client: Client, tmp_path: Path) -> None:
    file = b"FROM busybox AS made\nRUN mkdir -p /out/d; echo hi > /out/d/f; ln -s f /out/d/l; chmod 640 /out/d/f\n"
    (tmp_path / "Dockerfile").write_bytes(file + b"FROM scratch\nCOPY --from=made /out /\n")
    client.build("-o", str(tmp_path / "here"), str(tmp_path))
    assert (tmp_path / "here/d/l").read_text() == "hi\n"
    assert (tmp_path / "here/d/f").stat().st_mode & 0o777 == 0o640
    client.build("-o", f"type=tar,dest={tmp_path / 'out.tar'}", str(tmp_path))
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert {"d", "d/f", "d/l"} <= {name.strip("./") for name in tar.getnames()}


def test_contexts_from_standard_input(client: Client) -> None:
    image = client.image("-", stdin=b"FROM busybox\nRUN echo in > /in\nCMD cat /in\n")
    assert client("run", "--rm", image)[0] == b"in\n"
    context = tar_of({"Dockerfile": b"FROM busybox\nCOPY a /a\nCMD cat /a\n", "a": b"in a tar"})
    image = client.image("-", stdin=context)
    assert client("run", "--rm", image)[0] == b"in a tar"


def test_onbuild_brings_what_the_file_does_not_name(client: Client, tmp_path: Path) -> None:
    client.image("-t", "bk:on", "-", stdin=b"FROM busybox\nONBUILD COPY late /late\n")
    (tmp_path / "late").write_text("late")
    (tmp_path / "other").write_text("other")
    (tmp_path / "Dockerfile").write_text("FROM bk:on\nCOPY other /\nCMD cat /late /other\n")
    assert client("run", "--rm", client.image(str(tmp_path)))[0] == b"lateother"


def test_an_ssh_agent_reaches_run(client: Client, tmp_path: Path) -> None:
    """ssh-add of this host, with its libraries, speaks to an agent of this host from inside of the build."""
    program = shutil.which("ssh-add")
    if not program or not shutil.which("ssh-agent"):
        pytest.skip("there is no ssh-agent")
    libraries = [w for w in subprocess.check_output(["ldd", program], text=True).split() if w.startswith("/")]
    for path in (program, *libraries):
        goal = tmp_path / "root" / path.lstrip("/")
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, goal)
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY root /\nRUN --mount=type=ssh,required=true ssh-add -l\n")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "of a test", "-f", str(tmp_path / "key")], check=True)
    socket = f"/tmp/pystack-agent-{os.getpid()}"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        while not Path(socket).exists():
            assert agent.poll() is None
        subprocess.run(["ssh-add", "-q", str(tmp_path / "key")], env=os.environ | {"SSH_AUTH_SOCK": socket}, check=True)
        said = client.build("--no-cache", "--ssh", "default", str(tmp_path), SSH_AUTH_SOCK=socket)
        assert "of a test (ED25519)" in said
    finally:
        agent.terminate()
        agent.wait()
    assert "no agent default came with the build" in client.build("--no-cache", str(tmp_path), code=None)


def test_the_cache_is_listed_and_pruned(client: Client) -> None:
    client.image("--no-cache", "-", stdin=b"FROM busybox\nRUN echo pruned > /pruned\n")
    assert "Total" in client("builder", "prune", "-af")[0].decode()
