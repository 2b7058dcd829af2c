"""Writes docs/reference/ from the code: `python tools/reference.py [FOLDER]`. A test holds the pages to it.

What people wrote for a name (a variable, a check, a state) stands in the tables below; a name without words is an error.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import click  # noqa: E402
import msgspec  # noqa: E402

from agent import settings  # noqa: E402
from agent.contract.status import State  # noqa: E402
from orchestrator.cli import cli  # noqa: E402
from orchestrator.cli.groups import EXAMPLES, GROUPS, OTHERS, group_of  # noqa: E402
from orchestrator.cli.help import EXIT_STATUSES, STATES  # noqa: E402
from orchestrator.gitops import api as gitops_api  # noqa: E402
from orchestrator.ingress import api as ingress_api  # noqa: E402
from orchestrator.metrics import api as metrics_api  # noqa: E402
from orchestrator.notify import api as notify_api  # noqa: E402
from orchestrator.server.api import oidc  # noqa: E402
from orchestrator.server.api.routes import ROUTES  # noqa: E402
from orchestrator.ui import api as ui_api  # noqa: E402

HEAD = "<!-- written by tools/reference.py: change what it reads -->\n"
VARIABLE = re.compile(r"\b(?:PYSTACK|COMPOSE)_[A-Z][A-Z_]*[A-Z]\b")
PATTERN = re.compile(r"\{(\w+):[^}]*\}")
CHECK = re.compile(r'check="([a-z -]+)"|_(?:well|bad)\(\s*"([a-z ]+)"|"check": "([a-z ]+)"|Difference\(\s*"([a-z -]+)"')
VARIABLES = {
    "PYSTACK_HOST": "The server: `unix:///path`, `ssh://user@host[:port]`, `https://host[:port]` or `tcp://…` (TLS); several with commas: the one that leads is asked.",
    "PYSTACK_PASSPHRASE": "For `cluster backup` and `restore`: the passphrase of the file.",
    "PYSTACK_ROOT": "Moves all of one instance: state, sockets, names of links, table and cgroups.",
    "PYSTACK_CONFIG": "The settings file, instead of /etc/pystack/config.yml.",
    "PYSTACK_DOCKER_SOCKET": "Where Docker's API is answered: `--docker-socket`.",
    "PYSTACK_SSH_COMMAND": "The program for ssh://, with options: `ssh -J jump -i key`.",
    "PYSTACK_CERT_PATH": "The folder with ca.pem, cert.pem and key.pem for TLS; ~/.pystack without it.",
    "PYSTACK_STORE": "`server --store`: etcd://a,b,c/prefix.",
    "PYSTACK_STORE_CA": "`server --ca`: the CA of etcd's certificates.",
    "PYSTACK_STORE_CERT": "`server --cert`: this server's certificate for etcd.",
    "PYSTACK_STORE_KEY": "`server --key`: its key.",
    "PYSTACK_ADVERTISE": "`server --advertise`: how the other servers reach this host over SSH.",
    "PYSTACK_LISTEN": "`server --listen`: a tcp:// address at which the server answers over TLS.",
    "PYSTACK_LISTEN_NODES": "`server --listen-nodes`: a tcp:// address that machines dial which join by a token.",
    "PYSTACK_JOIN": "Of an agent: TOKEN@SERVER, or a file with it, by which the machine joins when the agent starts; once.",
    "PYSTACK_WEB": "`server --web`: an https:// address for tokens and browsers.",
    "PYSTACK_TOKEN": "The client's token (`pystack token create`), for a server at https://.",
    "PYSTACK_NOTICE_KIND": "For a command of `notify:`: what happened.",
    "PYSTACK_NOTICE_SUBJECT": "For a command of `notify:`: to which stack, node or host.",
    "PYSTACK_NOTICE_TEXT": "For a command of `notify:`: in words.",
    "PYSTACK_NOTICE_ID": "For a command of `notify:`: the same for the same notice.",
    "PYSTACK_REPO": "For a GitOps status command: the repository's name.",
    "PYSTACK_COMMIT": "For a GitOps status command: the commit.",
    "PYSTACK_PHASE": "For a GitOps status command: what became of it.",
    "PYSTACK_MESSAGE": "For a GitOps status command: in words.",
    "PYSTACK_BRANCH": "For a GitOps status command: the branch.",
    "PYSTACK_ADDRESS": "For a GitOps status command: where the stack answers, one URL a line.",
    "PYSTACK_ROOTLESS": "Set by pystack for itself inside a user's namespaces: the user's ID.",
    "PYSTACK_FAILPOINT": "For tests: where the process ends at once.",
    "PYSTACK_DEBUG_COMPLETION": "Shows why a shell is offered nothing.",
    "COMPOSE_FILE": "Stack files, as `-f`, with COMPOSE_PATH_SEPARATOR between.",
    "COMPOSE_PATH_SEPARATOR": "What parts the files of COMPOSE_FILE; `:` without it.",
    "COMPOSE_PROJECT_NAME": "The stack's name, as `-p`.",
    "COMPOSE_PROFILES": "Profiles, with commas, as `--profile`.",
    "COMPOSE_ENV_FILES": "Files of variables, with commas, as `--env-file`.",
    "COMPOSE_DISABLE_ENV_FILE": "`true`: .env is not read.",
    "COMPOSE_REMOVE_ORPHANS": "`true`: `up` and `down` take `--remove-orphans`.",
    "COMPOSE_PARALLEL_LIMIT": "Taken without effect, as `--parallel`: the nodes decide how much is done at once.",
    "COMPOSE_MENU": "`true`: an attached `pystack compose up` on a terminal has keys, which its last line names.",
    "COMPOSE_IGNORE_ORPHANS": "`true`: no word of tasks whose service left the file.",
    "COMPOSE_COMPATIBILITY": "`true`: as `--compatibility`, for `pystack compose`.",
    "COMPOSE_PROGRESS": "As `--progress`.",
    "COMPOSE_STATUS_STDOUT": "1: progress goes to the standard output, for `pystack compose`.",
    "COMPOSE_ANSI": "As `--ansi`, for `pystack compose`.",
    "COMPOSE_CONVERT_WINDOWS_PATHS": "As in Docker Compose.",
}
CHECKS = {
    "address-clash": (
        "two containers of a LAN have one address",
        "give one of them another, or take the foreign host off the LAN",
    ),
    "address": (
        "a link of ours has its addresses; `--host TARGET`: no NAT or jump host is on the way",
        "`doctor --repair`; `node add --underlay ADDRESS`",
    ),
    "bandwidth": ("a task's `x-bandwidth` holds: its rates are in the kernel", "`doctor --repair`"),
    "bridge-port": ("a link is a port of its bridge, with its flags", "`doctor --repair`"),
    "container-address": ("a container has the addresses that it was given", "`doctor --repair`"),
    "container-link": (
        "a container's interface is there, up, with its MAC and MTU",
        "`doctor --repair`, or `pystack restart` the task",
    ),
    "container-route": ("a container has its default routes", "`doctor --repair`"),
    "fdb": ("the bridge knows where far containers are", "`doctor --repair`"),
    "link": ("a link of ours is there and up", "`doctor --repair`"),
    "neighbour": ("far containers' MAC addresses are known", "`doctor --repair`"),
    "route": ("a route of ours is there", "`doctor --repair`"),
    "tunnel": ("an encrypted network's WireGuard device has its keys and peers", "`doctor --repair`"),
    "backup": ("the last backup of a volume, and its trial, went well", "see its words, then `pystack volume backup VOLUME`"),
    "certificate": (
        "the certificate of a host of the ingress is there, and far from its end",
        "bring another one, or let the authority reach port 80",
    ),
    "ingress": ("a proxy of the ingress has its configuration", "see `pystack logs -p pystack-ingress`"),
    "etcd": (
        "a member of the etcd that pystack manages answers, and has room",
        "`pystack server ls`; start its server, or `server rm` it",
    ),
    "clock": ("a node's clock is far from the server's", "`timedatectl set-ntp true` there"),
    "dns": ("a container's resolver answers, or does not", "`doctor --repair` starts it again"),
    "firewall": (
        "the nftables table is as wanted; other firewalls let packets pass",
        "`doctor --repair`; for others' rules, the line that is printed",
    ),
    "forward": ("the host forwards packets of our links", "`doctor --repair`"),
    "mtu": ("the underlay's MTU is what networks were made for", "set it back, or start the agent again"),
    "namespace": ("a container's network namespace is there", "`pystack restart` the task"),
    "node": ("an agent answers", "see why with `pystack node ls`, then `ssh` there; start pystack-agent"),
    "path-mtu": ("packets of full size pass between nodes", "raise the MTU on the way, or lower that of the link"),
    "port": ("a published port is held by pystack", "see who has it with `ss -ltnp`, and end that or publish another"),
    "program": ("runc or crun, conmon and nft are installed", "install the package that is named"),
    "sysctl": ("forwarding is on", "`doctor --repair`"),
    "underlay": ("a node has the address by which others reach it", "give it back to its link, or `pystack node update`"),
    "vip": ("a service address leads to its healthy tasks", "`doctor --repair`"),
    "vni": ("a VXLAN identifier belongs to one network", "make one of the networks again"),
    "volume": ("a volume's place and its mounts are there", "mount what is named, or move the volume"),
    "vxlan": ("a packet crosses the overlay between two nodes", "the finding says which layer stops it"),
    "vxlan-port": (
        "the UDP port of overlays (4789, or `data_path_port`) is open between two nodes",
        "let it through both ways",
    ),
    "system": ("`--host`: it is Linux", "use a Linux host; the client works elsewhere"),
    "kernel": ("`--host`: version 5.6 or newer", "use a newer kernel"),
    "kernel feature": ("`--host`: namespaces, overlayfs, seccomp, bridges, veth, VXLAN", "load the module that is named"),
    "python": ("`--host`: version 3.11 or newer", "install it"),
    "user": ("`--host`: root, or what is needed without", "log in as root, or keep to one host"),
    "rootless": (
        "`--host`: IDs, sysctls, /dev/net/tun and a login session of a user without root",
        "as the finding says, as root",
    ),
    "cgroup": ("`--host`: controllers for cpu, memory and pids", "turn the controller on, at boot"),
    "disk": ("`--host`: 2 GB and inodes are free, and it can be written", "free some, or set PYSTACK_ROOT"),
    "memory": ("`--host`: 400 MB", "give it more"),
    "beside": ("`--host`: Docker or Kubernetes runs there too", "nothing: both go on"),
    "selinux": ("`--host`: it is enforcing, and its policy names types of containers", "install a policy for containers"),
    "apparmor": ("`--host`: containers get a profile", "nothing"),
    "ssh": ("`--host TARGET`: the host can be asked", "what `ssh TARGET true` says"),
}


def _sources() -> Iterator[Path]:
    for room in ("orchestrator", "agent", "netplugins"):
        yield from sorted((ROOT / room).rglob("*.py"))


def variables() -> set[str]:
    """Every variable that the code reads or sets, but those of one letter's prefix that are built in it."""
    found = {name for path in _sources() for name in VARIABLE.findall(path.read_text())}
    return {name for name in found if name != "PYSTACK_STORE_"}


def checks() -> set[str]:
    """Every check of the doctors."""
    found = [match for path in _sources() for match in CHECK.findall(path.read_text())]
    return {name for names in found for name in names if name} - {"check"}  # the command's own name


def _worded(names: set[str], words: dict[str, typing.Any], what: str) -> list[str]:
    """*names* in order. Raises SystemExit for one without words, and for words without a name."""
    if missing := names - set(words):
        raise SystemExit(f"tools/reference.py says nothing of {what} {', '.join(sorted(missing))}")
    if gone := set(words) - names:
        raise SystemExit(f"tools/reference.py speaks of {what} {', '.join(sorted(gone))}, which the code does not have")
    return sorted(names)


def environment() -> str:
    """The page of variables."""
    rows = [f"| `{name}` | {VARIABLES[name]} |" for name in _worded(variables(), VARIABLES, "the variable")]
    return "\n".join(["# Environment variables", "", "| variable | what it does |", "|---|---|", *rows, "",
                      "Beside these, NO_COLOR takes colours away, DOCKER_CONFIG says where registry credentials lie, and "
                      "OTEL_EXPORTER_OTLP_ENDPOINT and TRACEPARENT are of [traces](../guide/metrics.md#traces)."])  # fmt: skip


def doctor() -> str:
    """The page of checks."""
    rows = [f"| `{name}` | {CHECKS[name][0]} | {CHECKS[name][1]} |" for name in _worded(checks(), CHECKS, "the check")]
    return "\n".join(["# What doctor looks at", "", "`pystack doctor` looks at every node; `pystack doctor --host` at a bare machine.",
                      "", "| check | it is well if | else |", "|---|---|---|", *rows])  # fmt: skip


def states() -> str:
    """The page of task states."""
    rows = [f"| `{name}` | {STATES[name]} |" for name in _worded(set(typing.get_args(State)), STATES, "the state")]
    return "\n".join(["# States of a task", "", "| state | what it means |", "|---|---|", *rows])


def exit_codes() -> str:
    """The page of exit statuses."""
    rows = [f"| {code} | {words} |" for code, words in EXIT_STATUSES.items()]
    return "\n".join(["# Exit statuses", "", "| status | when |", "|---|---|", *rows])


def _documented(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The text below each field, where there is one."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(struct))).body
    assert isinstance(body, ast.ClassDef)
    out = {}
    for here, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(here, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            assert isinstance(here.target, ast.Name)
            out[here.target.id] = " ".join(str(below.value.value).split())
    return out


def _kind(kind: typing.Any) -> str:
    """A type in the words of YAML."""
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    whole = str(kind)
    known = {"bool": "true or false", "str": "text", "int": "number", "float": "number"}
    return (
        "names and lists"
        if "dict[str, tuple" in whole
        else "names and texts"
        if "dict" in whole
        else "list"
        if "tuple" in whole
        else known.get(getattr(kind, "__name__", whole), whole)
    )


def _keys(struct: type[msgspec.Struct], above: str = "") -> Iterator[str]:
    documented = _documented(struct)
    for field in msgspec.structs.fields(struct):
        name = above + field.encode_name
        default = "" if field.default is msgspec.NODEFAULT else msgspec.json.encode(field.default).decode()
        inner = [t for t in (field.type, *typing.get_args(field.type)) if isinstance(t, type) and issubclass(t, msgspec.Struct)]
        shown = _kind(field.type)
        words = documented.get(field.name, " ".join((inner[0].__doc__ or "").split()) if inner else "")
        yield (
            f"| `{name}` | {shown.replace('|', 'or')} | `{default}` | {words} |"
            if not inner
            else f"| `{name}` | group | | {words} |"
        )
        for struct_type in inner:
            listed = "[]" if "tuple" in str(field.type) else ".NAME" if "dict" in str(field.type) else ""
            yield from _keys(struct_type, f"{name}{listed}.")


def config() -> str:
    """The page of settings."""
    return "\n".join(["# Settings: config.yml", "", f"{inspect.getdoc(settings.Settings)} It is /etc/pystack/config.yml, "
                      "$XDG_CONFIG_HOME/pystack/config.yml without root, PYSTACK_ROOT/config.yml or PYSTACK_CONFIG.", "",
                      "| key | type | default | what it does |", "|---|---|---|---|", *_keys(settings.Settings)])  # fmt: skip


def api() -> str:
    """The page of routes."""
    rows = []
    for method, path, handler, asked, given in (
        *ROUTES,
        *gitops_api.ROUTES,
        *ingress_api.ROUTES,
        *metrics_api.ROUTES,
        *notify_api.ROUTES,
        *oidc.ROUTES,
        *ui_api.ROUTES,
    ):
        words = (handler.__doc__ or "").strip().splitlines()[0]
        answer = "events, one a line" if type(given).__name__ == "StreamOf" else _type(given)
        rows.append(
            f"| {method} | `{PATTERN.sub(lambda m: '{' + m[1] + '}', path)}` | {_type(asked)} | {answer} | {words.replace('|', 'or')} |"
        )
    return "\n".join([
        "# REST API", "",
        "HTTP on the control socket; `pystack system openapi` prints the whole document with all types, the server has it at "
        "`/v1/openapi.json`. An error is `{\"message\": …}` with a status of HTTP's. A stream is one JSON object a line, and ends with "
        "`done` or `error`; one that ends otherwise was cut off.", "",
        "**What stays.** Within /v1 nothing is taken away or changes its meaning: fields, routes and kinds of events are added. Take "
        "no notice of those that you do not know. A change that breaks this gets /v2, and /v1 stays for two minor versions.", "",
        "| method | path | request | answer | what it does |", "|---|---|---|---|---|", *rows,
    ])  # fmt: skip


def _type(kind: typing.Any) -> str:
    return "" if kind is None else f"`{getattr(kind, '__name__', str(kind).replace('orchestrator.', ''))}`"


def _command(command: click.Command, context: click.Context, path: str, level: int) -> Iterator[str]:
    yield f"{'#' * level} pystack {path}\n"
    yield f"    pystack {path} {' '.join(command.collect_usage_pieces(context))}\n"
    for paragraph in (command.help or "").split("\n\n"):
        yield f"{' '.join(paragraph.split())}\n".replace("<", "&lt;")
    if path in EXAMPLES:
        yield "```console\n" + "\n".join(f"$ {line}" for line in EXAMPLES[path]) + "\n```\n"
    records = [r for p in command.params if isinstance(p, click.Option) and (r := p.get_help_record(context))]
    if records:
        yield "| option | what it does |\n|---|---|"
        yield "\n".join(f"| `{names.replace('|', ' or ')}` | {words.replace('|', 'or')} |" for names, words in records) + "\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below and not below.hidden:
                yield from _command(below, click.Context(below, parent=context, info_name=name), f"{path} {name}", level + 1)


def commands() -> str:
    """The page of commands."""
    context = click.Context(cli, info_name="pystack")
    rows: dict[str, list[str]] = {group: [] for group in (*GROUPS, OTHERS)}
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        if command and not command.hidden:
            below = click.Context(command, parent=context, info_name=name)
            rows[group_of(name)].append("\n".join(_command(command, below, name, 3)))
    pages = [f"## {group}\n\n" + "\n".join(found) for group, found in rows.items() if found]
    return "# Commands\n\n" + "\n".join(pages)


PAGES = {
    "commands.md": commands,
    "config.md": config,
    "environment.md": environment,
    "states.md": states,
    "doctor.md": doctor,
    "exit-statuses.md": exit_codes,
    "api.md": api,
}


def main(target: Path) -> None:
    """Write all pages."""
    target.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (target / name).write_text(HEAD + make().rstrip() + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/reference")
