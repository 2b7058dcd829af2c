"""Top-level `models:` and `models:` of services: a program of the client provides each, and its users get its address.

The program is the one that providers of the type `model` have (docker-model in PATH): it is asked with `--model`,
`--context-size` and `--runtime-flags`, and answers with the variables URL and MODEL. Source: Compose Specification, models.md
and 05-services.md, "models"; docker/compose, docs/extension.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agent.contract.container import Container
from orchestrator.stackfile.field_readers import scalar
from orchestrator.stackfile.load_context import LoadContext
from orchestrator.stackfile.model import Provider, Service
from orchestrator.stackfile.pre_start import Provided

TYPE = "model"


def variable(key: str, what: str) -> str:
    """LLM_URL of llm."""
    return f"{key.upper().replace('-', '_')}_{what}"


def models_of(reading: LoadContext, services: Iterable[Service]) -> tuple[Provided, ...]:
    """The models that *services* use. Those that nobody declares are problems of *reading*."""
    declared = reading.mapping(reading.tree.value.get("models"), ("models",))
    bodies = reading.mapping(reading.tree.value.get("services"), ("services",))
    users: dict[str, dict[str, tuple[str, str]]] = {}
    for service in services:
        path = ("services", service.name, "models")
        given = bodies[service.name].get("models")
        if given is None or not reading.is_valid(path):
            continue
        for key, spec in (dict.fromkeys(given) if isinstance(given, list) else given).items():
            if key not in declared:
                near = ", ".join(declared) or "none"
                reading.check((*path, key), f"model {key!r} is not declared", f"declare it under models:; there is: {near}")
                continue
            own: dict[str, Any] = spec or {}
            users.setdefault(key, {})[service.name] = (
                scalar(own.get("endpoint_var")) or variable(key, "URL"),
                scalar(own.get("model_var")) or variable(key, "MODEL"),
            )
    return tuple(
        Provided(
            service=_asked(reading, key, declared[key]),
            users=tuple(users[key]),
            names=tuple((user, *names) for user, names in users[key].items()),
        )
        for key in declared
        if key in users and reading.is_valid(("models", key))
    )


def _asked(reading: LoadContext, key: str, body: dict[str, Any]) -> Service:
    options = [("model", scalar(body.get("model")))]
    if "context_size" in body:
        options.append(("context-size", scalar(body["context_size"])))
    options += [("runtime-flags", scalar(flag)) for flag in body.get("runtime_flags") or ()]
    return Service(
        name=key,
        container=Container(image=""),
        where=str(reading.mark(("models", key))),
        provider=Provider(type=TYPE, options=tuple(options)),
    )
