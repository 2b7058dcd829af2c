"""`pystack up`"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.apply import apply
from orchestrator.cli.attach_options import Attach
from orchestrator.cli.flags import ValuedFlags
from orchestrator.cli.options import StackOptions, global_option, is_compose, is_set, progress_option, scales, stack_options
from orchestrator.cli.project_files import enforce_lock
from orchestrator.cli.show_plan import show_plan

if TYPE_CHECKING:
    from orchestrator.cli.attached_up import Ends
    from orchestrator.cli.client import Client
    from orchestrator.cli.menu import Key
    from orchestrator.cli.output import Progress
    from orchestrator.cli.watch import Watching
    from orchestrator.server.events import TaskEvent
    from orchestrator.stackfile.load import Loaded


PULLS = ("always", "missing", "never", "policy", "build")
"""When images are pulled: `policy` leaves it to pull_policy, `build` is --build."""
build_option = click.option("--build", is_flag=True, help="Build images even where they are there.")
no_build_option = click.option("--no-build", is_flag=True, help="Build nothing, even where an image is missing.")
pull_option = click.option(
    "--pull",
    type=click.Choice(PULLS),
    default=None,
    help="When images are pulled, if not as pull_policy says; build is --build.",
)
force_option = click.option("--force-recreate", is_flag=True, help="Replace tasks that did not change.")
keep_option = click.option("--no-recreate", is_flag=True, help="Replace no task that is there.")
orphans_option = click.option("--remove-orphans", is_flag=True, help="Remove tasks of services that left the file.")
scale_option = click.option("--scale", multiple=True, callback=scales, metavar="S=N", help="Replicas of a service.")
quiet_option = click.option("--quiet-pull", is_flag=True, help="No word of pulling.")
yes_option = click.option("-y", "--yes", is_flag=True, hidden=True)  # nothing is asked


def check_recreate(force: bool, keep: bool) -> None:
    """Raises UsageError if both --force-recreate and --no-recreate are given."""
    if force and keep:
        raise click.UsageError("--force-recreate and --no-recreate exclude each other")


def orphans_go(given: bool) -> bool:
    """Whether tasks of services that left the file are removed: COMPOSE_REMOVE_ORPHANS says so too."""
    if given and is_set("COMPOSE_IGNORE_ORPHANS"):
        raise click.UsageError("COMPOSE_IGNORE_ORPHANS and --remove-orphans exclude each other")
    return given or is_set("COMPOSE_REMOVE_ORPHANS")


@click.command()
@stack_options
@click.argument("services", nargs=-1)
@build_option
@no_build_option
@pull_option
@force_option
@keep_option
@orphans_option
@scale_option
@quiet_option
@yes_option
def create(
    stack: StackOptions,
    services: tuple[str, ...],
    build: bool,
    no_build: bool,
    pull: str | None,
    force_recreate: bool,
    no_recreate: bool,
    remove_orphans: bool,
    scale: dict[str, int],
    quiet_pull: bool,
    yes: bool,
) -> None:
    """As `up`, but start nothing: images are brought, networks and tasks are made."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress

    del yes
    check_recreate(force_recreate, no_recreate)
    client, loaded = Client(start=True), stack.load(named=services)
    if global_option("dry_run"):
        return show_plan(
            client, loaded, starts=False, services=services, force_recreate=force_recreate, no_recreate=no_recreate
        )
    apply(
        client,
        loaded,
        Progress(quiet_pull=quiet_pull),
        build=build,
        no_build=no_build,
        services=services,
        force_recreate=force_recreate,
        no_recreate=no_recreate,
        no_start=True,
        pull=pull or "",
        scale=scale,
        remove_orphans=orphans_go(remove_orphans),
    )


@click.command()
@stack_options
@click.option("--no-deps", is_flag=True, help="Do not wait for depends_on conditions.")
@click.argument("replicas", nargs=-1, required=True, callback=scales, metavar="SERVICE=N…")
def scale(stack: StackOptions, no_deps: bool, replicas: dict[str, int]) -> None:
    """Set how many replicas services have, until the next `up` without --scale."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress

    loaded = stack.load(named=tuple(replicas))
    apply(Client(start=True), loaded, Progress(), services=tuple(replicas), scale=replicas, no_deps=no_deps)


@click.command(cls=ValuedFlags)
@stack_options
@click.argument("services", nargs=-1)
@click.option("-d", "--detach", is_flag=True, help="Do not follow the output (the default).")
@click.option("--attach", is_flag=True, help="Follow the output until all has ended; when interrupted stop the stack.")
@click.option("--attach-dependencies", is_flag=True, help="Attach, to what the services need too.")
@click.option("--no-attach", multiple=True, metavar="SERVICE", help="Do not show the output of this one.")
@click.option("--no-log-prefix", is_flag=True, help="Attached, show lines without the names of tasks.")
@click.option("--no-color", is_flag=True, help="Attached, show names without colours.")
@click.option("--timestamps", is_flag=True, help="Attached, show times.")
@click.option("--abort-on-container-exit", "on_exit", is_flag=True, help="Attach, and stop all when one container ends.")
@click.option("--abort-on-container-failure", "on_failure", is_flag=True, help="Attach, and stop all when one fails.")
@click.option("--exit-code-from", metavar="SERVICE", default="", help="As --abort-on-container-exit; end with that exit code.")
@click.option("-V", "--renew-anon-volumes", is_flag=True, help="Replaced tasks do not keep their anonymous volumes.")
@click.option("--dry-run", is_flag=True, help="Show the plan alone.")
@click.option("--no-start", is_flag=True, help="Make everything, start nothing.")
@build_option
@no_build_option
@pull_option
@click.option("--no-deps", is_flag=True, help="Do not wait for depends_on conditions.")
@force_option
@keep_option
@click.option("--always-recreate-deps", is_flag=True, help="Replace what the services need too.")
@orphans_option
@scale_option
@click.option("--timeout", "--wait-timeout", type=float, default=None, help="Seconds to wait for a task to be up.")
@click.option("--wait/--no-wait", default=True, help="Wait until all is running, and healthy where there is a check.")
@click.option("-w", "--watch", is_flag=True, help="Go on as `watch` does.")
@click.option("-m", "--message", default="", help="Why, for the stack's history.")
@click.option("--strict", is_flag=True, help="Refuse keys that have no effect.")
@click.option("--locked", is_flag=True, help="Refuse images that are not as stack.lock says.")
@progress_option
@quiet_option
@click.option("--quiet-build", is_flag=True, hidden=True)
@click.option("--menu/--no-menu", default=False, help="Attached on a terminal: keys, which its last line names.")
@yes_option
def up(
    stack: StackOptions,
    services: tuple[str, ...],
    detach: bool,
    attach: bool,
    attach_dependencies: bool,
    on_exit: bool,
    on_failure: bool,
    exit_code_from: str,
    no_attach: tuple[str, ...],
    **given: Any,
) -> None:
    """Make the stack of the file true: build, pull, start, and wait until it runs."""
    ends = "any" if on_exit or exit_code_from else "failure" if on_failure else "all"
    attach = attach or attach_dependencies or ends != "all"
    if attach and (detach or given["no_start"]):
        raise click.UsageError("to detach, or to start nothing, leaves nothing to attach to")
    style = {"prefix": not given.pop("no_log_prefix"), "colour": not given.pop("no_color")}
    style["timestamps"] = given.pop("timestamps")
    menu = given.pop("menu")
    attached = Attach(ends, exit_code_from, (), no_attach, style, watch=given["watch"], menu=menu) if attach else None
    bring_up(stack, services, attached, dependencies=attach_dependencies, mentioned=no_attach, **given)


def bring_up(
    stack: StackOptions,
    services: tuple[str, ...],
    attach: Attach | None,
    *,
    dependencies: bool = False,
    mentioned: tuple[str, ...] = (),
    **given: Any,
) -> None:
    """`up`, with the options of the command in *given*; *mentioned* are services that other options name, which must exist.
    Raises SystemExit, UsageError, NoSuchServiceError."""
    from orchestrator.cli.traces import traced

    with traced("pystack up"):
        _bring_up(stack, services, attach, dependencies=dependencies, mentioned=mentioned, **given)


def _bring_up(
    stack: StackOptions,
    services: tuple[str, ...],
    attach: Attach | None,
    *,
    dependencies: bool,
    mentioned: tuple[str, ...],
    **given: Any,
) -> None:
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress
    from orchestrator.cli.traces import part, traceparent
    from orchestrator.errors import PystackError, require_services

    check_recreate(given["force_recreate"], given["no_recreate"])
    with part("load"):
        loaded = stack.load(strict=given["strict"], named=services)
    if is_compose() and not loaded.services and not global_option("all_resources"):
        raise PystackError("no service selected")
    if given.get("locked"):
        loaded = enforce_lock(loaded)
    named = {*mentioned, *((*attach.hidden, *attach.shown, attach.code_from) if attach else ())} - {""}
    require_services(named, loaded.stack.name, (s.name for s in loaded.stack.services))
    client = Client(start=True)
    client.trace = traceparent() or client.trace
    options = {
        "services": services,
        "scale": given["scale"],
        "force_recreate": given["force_recreate"],
        "no_recreate": given["no_recreate"],
        "force_deps": given["always_recreate_deps"],
        "remove_orphans": orphans_go(given["remove_orphans"]),
    }
    if given["dry_run"] or global_option("dry_run"):
        return show_plan(client, loaded, starts=not given["no_start"], **options)
    shown = Progress(given["progress"], quiet_pull=given["quiet_pull"])
    options |= {
        "no_deps": given["no_deps"],
        "wait": given["wait"] and attach is None,
        "attached": attach is not None or given.get("begun", False),
        "timeout_s": given["timeout"],
        "pull": given["pull"] or "",
        "message": given["message"],
        "renew_volumes": given["renew_anon_volumes"],
        "no_start": given["no_start"],
    }
    building = {"build": given["build"], "no_build": given["no_build"]}
    if attach is None:
        apply(client, loaded, shown, **building, **options)
    else:
        _attached(client, loaded, shown, attach, dependencies=dependencies, **building, **options)
    if given["watch"]:
        from orchestrator.cli.watch import follow_files

        follow_files(loaded, services, up=False)


def _attached(client: Client, loaded: Loaded, shown: Progress, attach: Attach, *, dependencies: bool, **options: Any) -> None:
    """Bring the stack up, and show its output to the end. Raises SystemExit with the exit status of the command."""
    from agent.contract.times import timestamp
    from orchestrator.cli import menu
    from orchestrator.cli.attached_up import Begun, Ends, run_attached
    from orchestrator.cli.watch import Watching
    from orchestrator.stackfile.graph import needed

    since = timestamp()

    def ends_it(event: TaskEvent) -> bool:
        return event.state == "exited" and (attach.ends == "any" or (attach.ends == "failure" and bool(event.exit_code)))

    ending = {"services": options["services"], "timeout_s": attach.stop_s}

    def stop() -> None:
        for event in client.events(f"/v1/stacks/{loaded.stack.name}/stop", body=ending):
            shown.event(event)

    ended = apply(client, loaded, shown, enough=ends_it, **options)
    services = options["services"]
    watching = Watching(client, loaded, services, shown)
    if dependencies and services:
        services = tuple(s.name for s in loaded.stack.services if s.name in needed(loaded.stack.services, services))
    talking = [s.name for s in loaded.stack.services if s.attach and s.name not in attach.hidden]
    wanted = attach.shown or services or talking
    attach = attach._replace(shown=tuple(s for s in wanted if s in talking or s in attach.shown))
    begun = Begun(loaded.stack.name, services, since, ended)
    ends = Ends(client, begun, attach.ends)
    if attach.watch:
        watching.toggle()
    with menu.shown(_keys(client, loaded, watching, ends)) if attach.menu and menu.possible() else contextlib.nullcontext():
        code = run_attached(client, begun, attach, ends, stop)
    raise SystemExit(code)


def _keys(client: Client, loaded: Loaded, watching: Watching, ends: Ends) -> dict[str, Key]:
    """The keys of an attached `up`."""
    from orchestrator.cli.config import rendered
    from orchestrator.cli.menu import Key
    from orchestrator.cli.output import show
    from orchestrator.cli.rows import tasks

    columns = ("task", "service", "node", "state", "ports")
    return {
        "v": Key(lambda: "View containers", lambda: show(tasks(client, loaded.stack.name), columns, "table")),
        "o": Key(lambda: "View config", lambda: click.echo(rendered(loaded, "yaml", (), canonical=True, pinned=False))),
        "w": Key(lambda: f"{'Disable' if watching.on else 'Enable'} watch", watching.toggle),
        "d": Key(lambda: "Detach", ends.leave),
    }
