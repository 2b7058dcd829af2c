"""Swarm's templates in a stack file: which texts they stand in, and what is wrong in them, with its line.

Source: Docker CLI reference, `docker service create`, "Create services using templates": hostname, environment, mounts; and
`--template-driver golang` of configs and secrets. Braces that name nothing of Swarm's belong to the program that reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from agent.contract.container import Container, Mount
from agent.contract.swarm_placeholder import identifier, names_swarm
from orchestrator.stackfile.marked_document import Path_

if TYPE_CHECKING:
    from agent.contract.golang_template import Values

DRIVER = "golang"


def values_of(stack: str, service: str, labels: Mapping[str, str], *, slot: str, task: str, node: Mapping[str, Any]) -> Values:
    """What placeholders stand for in one task. *labels* are the service's (`deploy.labels`), *node* what `.Node` has. IDs are
    made of names: a task keeps its own from one `up` to the next."""
    name = f"{stack}_{service}"
    own = identifier("task", task)
    return {
        "Service": {"ID": identifier("service", name), "Name": name, "Labels": dict(labels)},
        "Node": node,
        "Task": {"ID": own, "Name": f"{name}.{slot}.{own}", "Slot": slot},
    }


def sample(labels: Mapping[str, str]) -> Values:
    """Some values, to find out what is wrong before any task is placed."""
    node = {"ID": "id", "Hostname": "host", "Platform": {"OS": "linux", "Architecture": "amd64"}}
    return values_of("stack", "service", labels, slot="1", task="task", node=node)


def content_problem(text: str, labels: Mapping[str, str]) -> tuple[str, int] | None:
    """What is wrong in the template of a config or secret, and in which line of it."""
    return _problem(text, labels, dict.fromkeys(("env", "config", "secret"), str))


def _problem(
    text: str, labels: Mapping[str, str], functions: Mapping[str, Callable[[str], str]] = {}
) -> tuple[str, int] | None:
    from agent.contract.golang_template import TemplateError, expand

    try:
        expand(text, sample(labels), functions, every=True)
    except TemplateError as error:
        return str(error), error.line
    return None


def problems(container: Container, environment: Mapping[str, Any], labels: Mapping[str, str]) -> Iterator[tuple[Path_, str]]:
    """The places in a service, and what is wrong there. *environment* is the key's own value."""
    for path, text in _texts(container, environment):
        if names_swarm(text) and (problem := _problem(text, labels)):
            yield path, problem[0]


def _texts(container: Container, environment: Mapping[str, Any]) -> Iterator[tuple[Path_, str]]:
    yield ("hostname",), container.hostname
    for name, value in container.environment:
        yield ("environment", *((name,) if name in environment else ())), value
    for number, mount in enumerate(container.mounts):
        for text in (mount.source, mount.target, mount.subpath):
            yield ("volumes", number), text


def has_templates(container: Container) -> bool:
    """Whether any text of *container* contains a template of Swarm."""
    return any(names_swarm(text) for _, text in _texts(container, {}))


def expanded(container: Container, values: Values) -> Container:
    """*container* with what its templates stand for. Raises TemplateError."""
    from agent.contract.golang_template import expand

    def put(text: str) -> str:
        return expand(text, values) if names_swarm(text) else text

    def mount(one: Mount) -> Mount:
        return msgspec.structs.replace(one, source=put(one.source), target=put(one.target), subpath=put(one.subpath))

    return msgspec.structs.replace(
        container,
        hostname=put(container.hostname),
        mounts=tuple(map(mount, container.mounts)),
        environment=tuple((k, put(v)) for k, v in container.environment),
    )
