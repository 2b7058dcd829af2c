"""Every verb and option that Docker Compose's reference documents, and what becomes of it under `pystack compose`.

An option that takes a value ends with "=". What is said of it: "" is done as there; "differs: …" how; "refused: …" why.
Source: docs.docker.com/reference/cli/docker/compose, Docker Compose 2.40 and 5.0.
"""

from __future__ import annotations

_BUILDER = "refused: the node's own builder builds, and has none"
TAKEN = "differs: taken, without effect: Docker Compose has left it behind"

GLOBAL: dict[str, str] = {
    "--all-resources": "",
    "--ansi=": "",
    "--compatibility": "differs: names of containers are joined by _, those of images by - as without",
    "--dry-run": "",
    "--env-file=": "",
    "-f --file=": "",
    "--insecure-registry=": "differs: taken; `registries` of config.yml says which registries speak plain HTTP",
    "--no-ansi": "",
    "--parallel=": "differs: taken, and the nodes decide how much is done at once",
    "--profile=": "",
    "--progress=": "",
    "--project-directory= --workdir=": "",
    "-p --project-name=": "",
}

_SCALE = {"--no-deps": ""}
_PUBLISH = {
    "--annotation=": "",
    "--app": "refused: images are in their own repositories",
    "--insecure-registry": "differs: taken; `registries` of config.yml says which registries speak plain HTTP",
    "--oci-version=": "",
    "--resolve-image-digests": "",
    "--with-env": "",
    "-y --yes": "",
}
_WATCH = {"--no-up": "", "--prune": "differs: old images are left to `system prune`", "--quiet": ""}
VERBS: dict[str, dict[str, str]] = {
    "alpha dry-run": {},
    "alpha publish": _PUBLISH,
    "alpha scale": _SCALE,
    "alpha viz": {"--image": "", "--indentation-size=": "", "--networks": "", "--ports": "", "--spaces": ""},
    "alpha watch": _WATCH,
    "attach": {"--detach-keys=": "", "--index=": "", "--no-stdin": "", "--sig-proxy": ""},
    "build": {
        "--build-arg=": "",
        "--builder=": _BUILDER,
        "--check": _BUILDER,
        "--compress": TAKEN,
        "--force-rm": TAKEN,
        "-m --memory=": _BUILDER,
        "--no-cache": "",
        "--no-rm": TAKEN,
        "--parallel": TAKEN,
        "--print": _BUILDER,
        "--progress=": "",
        "--provenance=": "",
        "--pull": "",
        "--push": "",
        "-q --quiet": "",
        "--sbom=": "",
        "--ssh=": "",
        "--with-dependencies": "",
    },
    "commit": {"-a --author=": "", "-c --change=": "", "--index=": "", "-m --message=": "", "-p --pause": ""},
    "config": {
        "--environment": "",
        "--filter=": "",
        "--format=": "",
        "--hash=": "differs: the hashes are of pystack's normal form",
        "--images": "",
        "--lock-image-digests": "",
        "--models": "",
        "--networks": "",
        "--no-consistency": "",
        "--no-env-resolution": "",
        "--no-interpolate": "",
        "--no-normalize": "",
        "-o --output=": "",
        "--no-path-resolution": "",
        "--profiles": "",
        "-q --quiet": "",
        "--resolve-image-digests": "",
        "--services": "",
        "--variables": "",
        "--volumes": "",
    },
    "cp": {"-a --archive": "differs: modes and owners go along anyhow", "-L --follow-link": "", "--index=": "", "--all": ""},
    "create": {
        "--build": "",
        "--force-recreate": "",
        "--no-build": "",
        "--no-recreate": "",
        "--pull=": "",
        "--quiet-pull": "",
        "--remove-orphans": "",
        "--scale=": "",
        "-y --yes": "differs: nothing is asked",
    },
    "down": {
        "--remove-orphans": "differs: they go anyhow, and containers of services that a profile leaves out too",
        "--rmi=": "",
        "-t --timeout=": "",
        "-v --volumes": "",
    },
    "events": {"--json": "", "--since=": "", "--until=": ""},
    "exec": {
        "-d --detach": "",
        "-e --env=": "",
        "--index=": "",
        "-T --no-tty --no-TTY": "",
        "--privileged": "",
        "-u --user=": "",
        "-w --workdir=": "",
        "-i --interactive": "",
        "-t --tty": "differs: there is one where there is a terminal",
    },
    "export": {"--index=": "", "-o --output=": ""},
    "images": {"--format=": "", "-q --quiet": ""},
    "kill": {"--remove-orphans": "", "-s --signal=": ""},
    "logs": {
        "-f --follow": "",
        "--index=": "",
        "--no-color": "",
        "--no-log-prefix": "",
        "--since=": "",
        "-n --tail=": "",
        "-t --timestamps": "",
        "--until=": "",
    },
    "ls": {"-a --all": "", "--filter=": "differs: name alone", "--format=": "", "-q --quiet": ""},
    "pause": {},
    "port": {"--index=": "", "--protocol=": ""},
    "ps": {
        "-a --all": "",
        "--filter=": "differs: status alone",
        "--format=": "",
        "--no-trunc": "",
        "--orphans": "",
        "-q --quiet": "",
        "--services": "",
        "--status=": "",
    },
    "pull": {
        "--ignore-buildable": "",
        "--ignore-pull-failures": "",
        "--include-deps": "",
        "--no-parallel": TAKEN,
        "--parallel": TAKEN,
        "--policy=": "",
        "-q --quiet": "",
    },
    "publish": _PUBLISH,
    "push": {"--ignore-push-failures": "", "--include-deps": "", "-q --quiet": ""},
    "restart": {"--no-deps": "", "-t --timeout=": ""},
    "rm": {"-f --force": "", "-s --stop": "", "-v --volumes": "", "-a --all": ""},
    "run": {
        "--build": "",
        "--cap-add=": "",
        "--cap-drop=": "",
        "-d --detach": "",
        "--entrypoint=": "",
        "-e --env=": "",
        "--env-from-file=": "",
        "-i --interactive": "",
        "-l --label= --labels=": "",
        "--name=": "",
        "--no-build": "",
        "-T --no-tty --no-TTY": "",
        "--no-deps": "",
        "-p --publish=": "",
        "--pull=": "",
        "-q --quiet": "",
        "--quiet-build": "",
        "--quiet-pull": "",
        "--remove-orphans": "",
        "--rm": "",
        "-P --service-ports": "",
        "--use-aliases": "",
        "-u --user=": "",
        "-v --volume= --volumes=": "",
        "-w --workdir=": "",
        "-t --tty": "differs: there is one where there is a terminal",
    },
    "scale": _SCALE,
    "start": {"--wait": "", "--wait-timeout=": ""},
    "stats": {
        "-a --all": "differs: what does not run uses nothing",
        "--format=": "",
        "--no-stream": "",
        "--no-trunc": "",
    },
    "stop": {"-t --timeout=": ""},
    "top": {},
    "unpause": {},
    "up": {
        "--abort-on-container-exit": "",
        "--abort-on-container-failure": "",
        "--always-recreate-deps": "",
        "--attach=": "",
        "--attach-dependencies": "",
        "--build": "",
        "-d --detach": "",
        "--exit-code-from=": "",
        "--force-recreate": "",
        "--menu": "differs: off unless asked for; v lists the containers, o shows the file, d leaves them running",
        "--no-attach=": "",
        "--no-build": "",
        "--no-color": "",
        "--no-deps": "",
        "--no-log-prefix": "",
        "--no-recreate": "",
        "--no-start": "",
        "--pull=": "",
        "--quiet-build": "",
        "--quiet-pull": "",
        "--remove-orphans": "",
        "-V --renew-anon-volumes": "",
        "--scale=": "",
        "-t --timeout=": "differs: of the end of an attached `up`; replaced containers have their own time",
        "--timestamps": "",
        "--wait": "",
        "--wait-timeout=": "",
        "-w --watch": "",
        "-y --yes": "differs: nothing is asked",
    },
    "version": {"-f --format=": "", "--short": ""},
    "volumes": {"--format=": "", "-q --quiet": ""},
    "wait": {"--down-project": ""},
    "watch": _WATCH,
}
REFUSED: dict[str, str] = {
    "bridge": "refused: `pystack convert` makes stack files of Kubernetes' manifests; the other way is Docker's",
}
"""Verbs that there are not."""


HEAD = """
# Every verb and option of Docker Compose, and what becomes of it

`pystack compose` takes the command lines of `docker compose`, and `docker-compose` is the same by another name: put a link to
`pystack` of that name on the PATH. *done*: as in Docker Compose. *differs*: how. *refused*: the option is an error that says
why. Progress has Docker Compose's words on the standard error; `ps`, `ls`, `images`, `events`, `stats`, `top`,
`config` and `version` have its form and JSON. `COMPOSE_FILE`, `COMPOSE_PATH_SEPARATOR`, `COMPOSE_PROJECT_NAME`,
`COMPOSE_PROFILES`, `COMPOSE_ENV_FILES`, `COMPOSE_DISABLE_ENV_FILE`, `COMPOSE_PROGRESS`, `COMPOSE_ANSI`,
`COMPOSE_STATUS_STDOUT`, `COMPOSE_COMPATIBILITY`, `COMPOSE_MENU`, `COMPOSE_REMOVE_ORPHANS` and `COMPOSE_IGNORE_ORPHANS` count;
`COMPOSE_PARALLEL_LIMIT` is taken as `--parallel` is.

Services that ended well start again with each `up`, as there; `pystack up` itself leaves them, since it has nothing to do.
`ps`, `logs` and the rest find the containers of all nodes. Containers, one-off containers, networks, volumes and built
images have Docker Compose's labels; a container that is made by hand of such an image is not of the project, and shows none.
Builds tell of their steps as Docker's classic builder did. A mistake in a command line ends with 2, where Docker Compose has 1
or 16, and an error stands after `pystack:`, with file, line and column where a file is wrong.
"""


def words(option: str) -> tuple[tuple[str, ...], bool]:
    """The names of an option, and whether it takes a value."""
    return tuple(name.rstrip("=") for name in option.split()), option.endswith("=")


def table() -> str:
    """All of it as Markdown, below the table of keys in docs/compose.md."""
    lines = [HEAD, "| verb | option | here |", "|---|---|---|"]
    for verb, options in {"": GLOBAL, **VERBS}.items():
        support = {", ".join(f"`{name}`" for name in words(o)[0]): why or "done" for o, why in options.items()}
        done = [option for option, why in support.items() if why == "done"]
        shown = f"`{verb}`" if verb else "before the verb"
        lines.append(f"| {shown} | {', '.join(done) or '(none)'} | done |")
        lines += [f"| {shown} | {option} | {why} |" for option, why in support.items() if why != "done"]
    lines += [f"| `{verb}` | | {why} |" for verb, why in REFUSED.items()]
    return "\n".join(lines) + "\n"
