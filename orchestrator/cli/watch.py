"""`pystack watch`: what changes here reaches the containers. Source: Compose Specification, develop.md."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.globals import push_context

from orchestrator.cli.options import StackOptions, global_option, is_compose, stack_options
from orchestrator.errors import PystackError, require_services

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress
    from orchestrator.stackfile.load import Loaded
    from orchestrator.stackfile.model import Service, WatchRule

ALWAYS = "**/.git\n**/*~\n**/*.swp\n**/*.swx\n**/.#*\n**/4913\n**/.DS_Store\n**/__pycache__\n"
"""What editors and git leave behind while they write."""


@click.command()
@stack_options
@click.option("--no-up", is_flag=True, help="Do not bring the stack up first.")
@click.option("--prune/--no-prune", default=True, hidden=True)  # old images are left to `system prune`
@click.option("--quiet", is_flag=True, help="No word of bringing it up.")
@click.argument("services", nargs=-1)
def watch(stack: StackOptions, no_up: bool, prune: bool, quiet: bool, services: tuple[str, ...]) -> None:
    """Sync, restart or rebuild services as their files change here, until interrupted."""
    del prune
    follow_files(stack.load(named=services), services, up=not no_up, quiet=quiet)


def follow_files(loaded: Loaded, services: tuple[str, ...], *, up: bool, quiet: bool = False) -> None:
    """`watch`: until interrupted. Under --dry-run it says what it would do. Raises PystackError."""
    from orchestrator.cli.apply import apply
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress
    from orchestrator.cli.show_plan import show_plan

    watched, pretended = _watched(loaded, services), bool(global_option("dry_run"))
    client, shown = Client(start=True), Progress("quiet" if quiet else "auto")
    if up and pretended:
        show_plan(client, loaded)
    elif up:
        apply(client, loaded, shown)
    _follow((PretendedSyncer if pretended else FileSyncer)(client, loaded, shown), watched, None)


class Watching:
    """The files of a stack while something else goes on: watched in a thread, or not. *services* are those that are, all if
    empty."""

    def __init__(self, client: Client, loaded: Loaded, services: tuple[str, ...], shown: Progress) -> None:
        self._work = FileSyncer(client, loaded, shown)
        self._services = services
        self._stop: threading.Event | None = None

    @property
    def on(self) -> bool:
        """Whether they are watched."""
        return self._stop is not None

    def toggle(self) -> None:
        """Begin, or end. Raises PystackError where there is nothing to watch."""
        if self._stop:
            self._stop.set()
            self._stop = None
            return _say("the files are not watched any more", "Watch disabled")
        watched = _watched(self._work.loaded, self._services)
        self._stop = threading.Event()
        threading.Thread(target=self._run, args=(watched, self._stop, click.get_current_context()), daemon=True).start()

    def _run(self, watched: list[Service], stop: threading.Event, context: click.Context) -> None:
        push_context(context)
        try:
            _follow(self._work, watched, stop)
        except PystackError as error:
            click.secho(str(error), fg="red", err=True)
        if self._stop is stop:
            self._stop = None


def _follow(work: FileSyncer, watched: list[Service], stop: threading.Event | None) -> None:
    """Do what the rules of *watched* say, until *stop* is set, or, without one, until interrupted."""
    from watchfiles import watch as follow

    # a file is watched by its folder: editors put another one in its place
    roots = {r.path if Path(r.path).is_dir() else str(Path(r.path).parent) for s in watched for r in s.watch}
    begun = False
    # it yields nothing now and then: what changes after the first time is seen
    batches = follow(
        *roots,
        debounce=300,
        step=50,
        rust_timeout=250,
        yield_on_timeout=True,
        watch_filter=None,
        raise_interrupt=stop is None,
        stop_event=stop,
    )
    for changes in batches:
        if not begun:
            begun = True
            for service in watched:
                work.initial(service)
            _say(f"watching {', '.join(sorted(roots))}", "Watch enabled")
        paths = sorted({file for _, path in changes for file in _files(Path(path))})
        for service in watched if paths else ():
            try:
                work.changed(service, paths)
            except PystackError as error:  # the next change may mend it
                click.secho(f"{service.name}: {error}", fg="red", err=True)


def _say(own: str, composes: str) -> None:
    """Print *own* on the standard error, or Docker Compose's words on the standard output, where that is the command; "" is
    nothing."""
    if is_compose():
        if composes:
            click.echo(f"{' DRY-RUN MODE - ' if global_option('dry_run') else ''} ⦿ {composes}")
    elif own:
        click.echo(own, err=True)


def _watched(loaded: Loaded, services: tuple[str, ...]) -> list[Service]:
    """The services with develop.watch, of *services* or of all. Raises PystackError for a rule that cannot work."""
    require_services(services, loaded.stack.name, (s.name for s in loaded.stack.services))
    watched = [s for s in loaded.stack.services if s.watch and (not services or s.name in services)]
    if without := sorted(set(services) - {s.name for s in watched}):
        raise PystackError(f"{', '.join(without)}: there is no develop.watch in the file")
    if not watched:
        raise PystackError("no service has develop.watch: say there what a change leads to")
    for service in watched:
        for rule in service.watch:
            if not Path(rule.path).exists():
                raise PystackError(f"{service.where}: {service.name}: develop.watch: {rule.path} does not exist")
            if rule.action == "rebuild" and not service.build:
                raise PystackError(f"{service.where}: {service.name}: develop.watch: rebuild needs build:")
    return watched


def _files(path: Path) -> list[Path]:
    """A folder that is new may have had its files before it was watched."""
    return [p for p in path.rglob("*") if not p.is_dir()] if path.is_dir() and not path.is_symlink() else [path]


class FileSyncer:
    """Applies the `develop.watch` rules of a loaded stack to paths that changed."""

    def __init__(self, client: Client, loaded: Loaded, shown: Progress) -> None:
        self.client = client
        self.loaded = loaded
        self.shown = shown

    def changed(self, service: Service, paths: list[Path]) -> None:
        """Do what the rules of *service* say about *paths*: a rebuild takes all else along."""
        hits = [(rule, found) for rule in service.watch if (found := [p for p in paths if concerns(service, rule, p)])]
        if any(rule.action == "rebuild" for rule, _ in hits):
            _say(f"{service.name}: rebuild", f'Rebuilding service(s) ["{service.name}"] after changes were detected...')
            self.rebuild(service)
            return _say("", f'service(s) ["{service.name}"] successfully built')
        for rule, found in hits:
            if "sync" in rule.action:
                self.sync(service, rule, found)
        if any("restart" in rule.action for rule, _ in hits):
            _say(f"{service.name}: restart", "")
            self.restart(service)
            _say("", f'service(s) ["{service.name}"] restarted')

    def rebuild(self, service: Service) -> None:
        """Build the image of *service* and replace its tasks."""
        from orchestrator.cli.apply import apply

        apply(self.client, self.loaded, self.shown, build=True, services=(service.name,), no_deps=True)

    def restart(self, service: Service) -> None:
        """Restart the tasks of *service*."""
        body = {"services": [service.name]}
        for event in self.client.events(f"/v1/stacks/{self.loaded.stack.name}/restart", body=body):
            self.shown.event(event)

    def initial(self, service: Service) -> None:
        """Copy what the rules of *service* with initial_sync concern."""
        for rule in service.watch:
            if rule.initial_sync and "sync" in rule.action:
                root = Path(rule.path)
                there = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]
                if wanted := [p for p in there if concerns(service, rule, p)]:
                    self.sync(service, rule, wanted)

    def sync(self, service: Service, rule: WatchRule, paths: list[Path]) -> None:
        """Copy *paths* into every task of *service*; those that are gone here go there too."""
        _say("", f'Syncing service "{service.name}" after {len(paths)} changes were detected')
        count = self.copy(service, rule, paths)
        names = ", ".join(inside(rule, p) for p in paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
        _say(f"{service.name}: synced {names} to {count} task{'' if count == 1 else 's'}", "")

    def copy(self, service: Service, rule: WatchRule, paths: list[Path]) -> int:
        """Make *paths* in the tasks of *service* what they are here, and run what *rule* runs then. Returns how many tasks."""
        from orchestrator.cli import execute
        from orchestrator.cli.selection import of_stack

        there = [p for p in paths if p.exists()]
        gone = [inside(rule, p) for p in paths if not p.exists()]
        rows = [r for r in of_stack(self.client, self.loaded.stack.name, (service.name,)) if r["state"] == "running"]
        archive = packed(rule, there)
        for row in rows:
            node, base = self.client.at(row["node"]), f"/containers/{row['id']}"
            if there:
                node.request("PUT", f"{node.base}{base}/archive", query={"path": "/"}, body=archive).read()
            if gone:
                execute.run(node, row["id"], {"Cmd": ["rm", "-rf", "--", *gone]}, tty=False, stdin=False)
            if rule.command and rule.action == "sync+exec":
                hook = rule.command
                build_request: dict[str, Any] = {
                    "Cmd": list(hook.command),
                    "User": hook.user,
                    "WorkingDir": hook.working_dir,
                    "Privileged": hook.privileged,
                    "Env": [f"{k}={v}" for k, v in hook.environment],
                }
                if code := execute.run(node, row["id"], build_request, tty=False, stdin=False):
                    click.secho(f"{row['task']}: {' '.join(hook.command)} ended with {code}", fg="red", err=True)
        return len(rows)


class PretendedSyncer(FileSyncer):
    """Says what a FileSyncer would do, and does nothing."""

    def rebuild(self, service: Service) -> None:
        """Nothing."""

    def restart(self, service: Service) -> None:
        """Nothing."""

    def copy(self, service: Service, rule: WatchRule, paths: list[Path]) -> int:
        """Nothing, to as many tasks as there would be."""
        return service.replicas


def concerns(service: Service, rule: WatchRule, path: Path) -> bool:
    """Whether a change of *path* is the rule's business: what a build of the service leaves out is not."""
    from orchestrator.cli.context import ignored_in, rules_of

    root = Path(rule.path)
    if path == root:
        return not root.is_dir()
    if not path.is_relative_to(root):
        return False
    name = str(path.relative_to(root))
    if rules_of(ALWAYS, "").ignores(name) or rules_of("\n".join(rule.ignore), "develop.watch.ignore").ignores(name):
        return False
    if path.is_dir():
        return False
    own = service.build
    context, dockerfile = (Path(own.context).resolve(), own.dockerfile) if own and not own.remote else (root, "")
    rules = {root: ignored_in(root, ""), context: ignored_in(context, dockerfile)}
    if any(path.is_relative_to(top) and left.ignores(str(path.relative_to(top))) for top, left in rules.items()):
        return False
    return not rule.include or rules_of("\n".join(rule.include), "develop.watch.include").ignores(name)


def inside(rule: WatchRule, path: Path) -> str:
    """Where *path* lies in the container."""
    root = Path(rule.path)
    return rule.target if path == root else f"{rule.target.rstrip('/')}/{path.relative_to(root)}"


def packed(rule: WatchRule, paths: Iterable[Path]) -> bytes:
    """*paths* as a tar, named as they are to lie in the container."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in paths:
            try:
                archive.add(path, arcname=inside(rule, path).lstrip("/"), recursive=False)
            except FileNotFoundError:
                continue  # gone again: the next change says so
    return out.getvalue()
