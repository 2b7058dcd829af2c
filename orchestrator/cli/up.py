"""`pystack up`"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import StackOptions, global_option, stack_options

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress
    from orchestrator.server.events import Event, TaskEvent
    from orchestrator.stackfile.load import Loaded
    from orchestrator.stackfile.model import Stack


def scales(_: Any, __: Any, values: tuple[str, ...]) -> dict[str, int]:
    out = {}
    for value in values:
        name, sep, count = value.partition("=")
        if not sep or not count.isdigit():
            raise click.BadParameter(f"{value!r}: write SERVICE=NUMBER")
        out[name] = int(count)
    return out


def apply(
    client: Client,
    loaded: Loaded,
    shown: Progress,
    *,
    build: bool = False,
    enough: Callable[[TaskEvent], bool] = lambda _: False,
    **options: Any,
) -> TaskEvent | None:
    """Build what must be built, and let the server make the stack true; *options* are UpOptions. Returns early, with the event
    that was *enough*, None where none was."""
    import getpass

    import msgspec

    from orchestrator.cli.build import build_services
    from orchestrator.cli.output import consume_events
    from orchestrator.server.events import TaskEvent
    from orchestrator.stackfile.graph import needed

    chosen = options.get("services", ())
    if loaded.providers:
        from orchestrator.cli.providers import start_providers

        loaded = start_providers(loaded, chosen)
        others = {p.service.name for p in loaded.providers}
        options["services"] = tuple(s for s in chosen if s not in others)
        if chosen and not options["services"]:
            return None
    wanted = options.get("services", ())
    if wanted and not options.get("no_deps"):
        wanted = tuple(needed(loaded.stack.services, wanted))
    build_services(client, loaded.stack, wanted, always=build, progress=shown)
    if global_option("all_resources"):
        used = {m.source for s in loaded.stack.services for m in s.container.mounts}
        for volume in loaded.stack.volumes:
            if volume.name not in used and not volume.external:
                labels = {**dict(volume.labels), "com.docker.compose.project": loaded.stack.name}
                client.engine(
                    "POST",
                    "/volumes/create",
                    body={"Name": volume.name, "Driver": volume.driver, "Labels": labels, "DriverOpts": dict(volume.options)},
                )
    body = msgspec.json.encode(
        {"stack": inline_project_files(client, loaded), "options": {"user": getpass.getuser(), **options}}
    )
    last: TaskEvent | None = None

    def events() -> Iterator[Event]:
        nonlocal last
        for event in client.events("/v1/up", body=body):
            yield event
            if isinstance(event, TaskEvent) and enough(event):
                last = event
                return

    consume_events(events(), shown)
    return last


def inline_project_files(client: Client, loaded: Loaded) -> Stack:
    """The stack for the server, with the project's small files that it mounts where there are other nodes than this host."""
    from orchestrator.stackfile.inline_files import has_inlinable_mounts, inline_bind_mounts

    if not has_inlinable_mounts(loaded.stack, loaded.directory) or len(client.json("GET", "/v1/nodes")) < 2:
        return loaded.stack
    stack, said = inline_bind_mounts(loaded.stack, loaded.directory)
    for line in said:
        click.echo(line, err=True)
    return stack


def show_plan(client: Client, loaded: Loaded, **options: Any) -> None:
    """What `apply` would do; nothing is asked of providers."""
    import msgspec

    from orchestrator.cli.plan import show

    show(
        client.json(
            "POST", "/v1/plan", body=msgspec.json.encode({"stack": inline_project_files(client, loaded), "options": options})
        )
    )


@click.command()
@stack_options
@click.argument("services", nargs=-1)
@click.option("--build", is_flag=True, help="Build images even where they are there.")
@click.option("--force-recreate", is_flag=True, help="Replace tasks that did not change.")
def create(stack: StackOptions, services: tuple[str, ...], build: bool, force_recreate: bool) -> None:
    """As `up`, but start nothing: images are brought, networks and tasks are made."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress

    client, loaded = Client(start=True), stack.load(named=services)
    if global_option("dry_run"):
        return show_plan(client, loaded, services=services, force_recreate=force_recreate)
    apply(client, loaded, Progress(), build=build, services=services, force_recreate=force_recreate, no_start=True)


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


@click.command()
@stack_options
@click.argument("services", nargs=-1)
@click.option("-d", "--detach", is_flag=True, help="Do not follow the output (the default).")
@click.option("--attach", is_flag=True, help="Follow the output until all has ended; when interrupted stop the stack.")
@click.option("--no-attach", multiple=True, metavar="SERVICE", help="Do not show the output of this one.")
@click.option("--abort-on-container-exit", "on_exit", is_flag=True, help="Attach, and stop all when one container ends.")
@click.option("--abort-on-container-failure", "on_failure", is_flag=True, help="Attach, and stop all when one fails.")
@click.option("--exit-code-from", metavar="SERVICE", default="", help="As --abort-on-container-exit; end with that exit code.")
@click.option("-V", "--renew-anon-volumes", is_flag=True, help="Replaced tasks do not keep their anonymous volumes.")
@click.option("--dry-run", is_flag=True, help="Show the plan alone.")
@click.option("--no-start", is_flag=True, help="Make everything, start nothing.")
@click.option("--build", is_flag=True, help="Build images even where they are there.")
@click.option("--pull", type=click.Choice(["always", "missing", "never"]), default=None)
@click.option("--no-deps", is_flag=True, help="Do not wait for depends_on conditions.")
@click.option("--force-recreate", is_flag=True, help="Replace tasks that did not change.")
@click.option("--remove-orphans", is_flag=True, help="Remove tasks of services that left the file.")
@click.option("--scale", multiple=True, callback=scales, metavar="S=N", help="Replicas of a service.")
@click.option("--timeout", type=float, default=None, help="Seconds to wait for a task to be up.")
@click.option("--wait/--no-wait", default=True, help="Wait until all is running, and healthy where there is a check.")
@click.option("-m", "--message", default="", help="Why, for the stack's history.")
@click.option("--strict", is_flag=True, help="Refuse keys that have no effect.")
@click.option("--progress", type=click.Choice(["auto", "plain", "json", "quiet"]), default="auto")
@click.option("--quiet-pull", is_flag=True, hidden=True)
@click.option("--menu", type=bool, is_flag=False, flag_value=True, default=False, hidden=True)
@click.option("--no-color", is_flag=True, hidden=True)
@click.option("-y", "--yes", is_flag=True, hidden=True)
def up(
    stack: StackOptions,
    services: tuple[str, ...],
    detach: bool,
    attach: bool,
    no_attach: tuple[str, ...],
    on_exit: bool,
    on_failure: bool,
    exit_code_from: str,
    renew_anon_volumes: bool,
    dry_run: bool,
    no_start: bool,
    build: bool,
    pull: str | None,
    no_deps: bool,
    force_recreate: bool,
    remove_orphans: bool,
    scale: dict[str, int],
    timeout: float | None,
    wait: bool,
    message: str,
    strict: bool,
    progress: str,
    **of_compose: Any,
) -> None:
    """Make the stack of the file true: build, pull, start, and wait until it runs."""
    import datetime

    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress

    loaded = stack.load(strict=strict, named=services)
    known = {s.name for s in loaded.stack.services}
    if strangers := sorted({*no_attach, *([exit_code_from] if exit_code_from else [])} - known):
        raise click.UsageError(f"there is no service {', '.join(strangers)}")
    ends = "any" if on_exit or exit_code_from else "failure" if on_failure else "all"
    attach = attach or ends != "all"
    if attach and (detach or no_start):
        raise click.UsageError("to detach, or to start nothing, leaves nothing to attach to")
    client = Client(start=True)
    if dry_run or global_option("dry_run"):
        return show_plan(
            client, loaded, services=services, scale=scale, force_recreate=force_recreate, remove_orphans=remove_orphans
        )
    shown = Progress(progress)
    since = datetime.datetime.now(datetime.UTC).isoformat()

    def ends_it(event: TaskEvent) -> bool:
        return event.state == "exited" and (ends == "any" or (ends == "failure" and bool(event.exit_code)))

    ended = apply(
        client,
        loaded,
        shown,
        build=build,
        enough=ends_it,
        services=services,
        scale=scale,
        force_recreate=force_recreate,
        remove_orphans=remove_orphans,
        no_deps=no_deps,
        wait=wait and not attach,
        attached=attach,
        timeout_s=timeout,
        pull=pull or "",
        message=message,
        renew_volumes=renew_anon_volumes,
        no_start=no_start,
    )
    if attach:
        from orchestrator.cli.attached_up import run_attached

        def stop() -> None:
            for event in client.events(f"/v1/stacks/{loaded.stack.name}/stop", body={}):
                shown.event(event)

        seen = tuple(s.name for s in loaded.stack.services if s.attach and s.name not in no_attach)
        raise SystemExit(
            run_attached(
                client,
                loaded.stack.name,
                services,
                shown=tuple(s for s in services or seen if s in seen),
                stop=stop,
                since=since,
                ends=ends,
                code_from=exit_code_from,
                first=ended,
            )
        )
