"""Make the server's stack what a loaded one says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from orchestrator.cli.options import global_option, implied_options, user_name
from orchestrator.cli.project_files import inline_project_files
from orchestrator.cli.registry_login import headers_for

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress
    from orchestrator.server.events import Event, TaskEvent
    from orchestrator.stackfile.load import Loaded


def apply(
    client: Client,
    loaded: Loaded,
    shown: Progress,
    *,
    build: bool = False,
    no_build: bool = False,
    enough: Callable[[TaskEvent], bool] = lambda _: False,
    **options: Any,
) -> TaskEvent | None:
    """Build what must be built, and let the server make the stack true; *options* are UpOptions. Returns early, with the event
    that was *enough*, None where none was."""
    import msgspec

    from orchestrator.cli.build import build_services
    from orchestrator.errors import require_services
    from orchestrator.server.events import TaskEvent
    from orchestrator.stackfile.graph import needed

    if (given := options.get("pull")) in ("policy", "build"):  # the words of Docker Compose for none, and for --build
        options["pull"], build = "", build or given == "build"
    chosen = options.get("services", ())
    there = [*(s.name for s in loaded.stack.services), *(p.service.name for p in loaded.providers)]
    require_services((*chosen, *options.get("scale", ())), loaded.stack.name, there)  # before anything is built
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
    if not no_build:
        build_services(client, loaded.stack, wanted, always=build, progress=shown)
    if global_option("all_resources"):
        _create_unused_volumes(client, loaded)
    needs = [d for s in loaded.stack.services for d in s.depends_on if d.condition != "service_started"]
    conditions = {f"{loaded.stack.name}-{d.service}": d.condition for d in needs}
    shown.expect(conditions, to_the_end=bool(options.get("wait")))
    options = {"user": user_name(), **implied_options(loaded), **options}
    body = msgspec.json.encode({"stack": inline_project_files(client, loaded), "options": options})
    logins = headers_for(name for s in loaded.stack.services for name in s.container.images)
    last: TaskEvent | None = None
    # these replace all tasks, and would replace them a second time
    repeat = not any(options.get(word) for word in ("force_recreate", "renew_volumes", "always_recreate_deps"))

    def events() -> Iterator[Event]:
        nonlocal last
        for event in client.events("/v1/up", repeat=repeat, body=body, headers=logins):
            yield event
            if isinstance(event, TaskEvent) and enough(event):
                last = event
                return

    _follow(client, events(), shown, "" if options.get("attached") else loaded.stack.name)
    return last


def _create_unused_volumes(client: Client, loaded: Loaded) -> None:
    """Create the volumes that no service mounts."""
    from agent.contract.volume import Volume

    used = {m.source for s in loaded.stack.services for m in s.container.mounts}
    for volume in loaded.stack.volumes:
        if volume.name not in used and not volume.external:
            wanted = Volume(
                name=volume.name,
                driver=volume.driver,
                options=volume.options,
                labels=volume.labels,
                stack=loaded.stack.name,
                key=volume.key,
            )
            options = dict(volume.options)
            body = {"Name": volume.name, "Driver": volume.driver, "Labels": wanted.own_labels, "DriverOpts": options}
            client.engine("POST", "/volumes/create", body=body)


def _follow(client: Client, events: Iterator[Event], shown: Progress, stack: str) -> None:
    """Show *events* to their end; ctrl-C meanwhile asks what becomes of the rollout of *stack*, "" for none."""
    from orchestrator.cli.output import consume_events

    try:
        consume_events(events, shown)
    except KeyboardInterrupt:
        if stack:
            from orchestrator.cli.rollout import interrupted

            interrupted(client, stack)
        raise
