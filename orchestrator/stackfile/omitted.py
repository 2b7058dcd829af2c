"""What a normal form leaves out: values that say what is so without them.

As programs in Go write a struct: false, 0, "" and what is empty are left out, unless the field is known to be set by itself
(a pointer, such as a number of replicas). Source: encoding/json and gopkg.in/yaml.v3, omitempty; what `docker compose config`
prints for each key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

SIZES = ("mem_limit", "mem_reservation", "memswap_limit", "shm_size", "memory", "size")
"""Keys whose 0 is text: bytes."""
PAUSES = ("delay", "monitor")
"""Durations of an update, whose 0s is what it is without them."""
Form = Callable[[Any], Any]


def _is_default(key: str, value: Any) -> bool:
    if value is None or value is False or value in ("", 0):
        return True
    if isinstance(value, (list, tuple, dict)):
        return not value
    return (key in SIZES and value == "0") or (key in PAUSES and value == "0s")


def _trimmed(*kept: str, **forms: Form) -> Form:
    """What takes from a mapping the keys that say nothing, but for *kept*, its values in their *forms* before. What is not a
    mapping stays as it is."""

    def trim(body: Any) -> Any:
        if not isinstance(body, Mapping):
            return body
        shown = {k: forms[k](v) if k in forms else v for k, v in body.items()}
        return {k: v for k, v in shown.items() if k.startswith("x-") or (k in kept and v is not None) or not _is_default(k, v)}

    return trim


def _each(form: Form) -> Form:
    def trim(items: Any) -> Any:
        if isinstance(items, Mapping):
            return {k: form(v) for k, v in items.items()}
        return [form(v) for v in items] if isinstance(items, list) else items

    return trim


_UPDATE = _trimmed("parallelism")
_LIMITS = _trimmed()
_DEPLOY = _trimmed(
    "replicas",
    "update_config",
    "rollback_config",
    "restart_policy",
    update_config=_UPDATE,
    rollback_config=_UPDATE,
    restart_policy=_trimmed("delay", "max_attempts", "window"),
    resources=_trimmed("limits", "reservations", limits=_LIMITS, reservations=_LIMITS),
    placement=_trimmed(),
)
_MOUNT = _trimmed(
    "bind", "volume", "tmpfs", "image", bind=_trimmed("create_host_path"), volume=_trimmed(), tmpfs=_trimmed(), image=_trimmed()
)
_HOOKS = _each(_trimmed())
_GRANTED = _each(_trimmed("mode"))
SERVICE: Form = _trimmed(
    "attach",
    "init",
    "scale",
    "command",
    "entrypoint",
    "stop_grace_period",
    "build",
    "develop",
    "blkio_config",
    "credential_spec",
    "deploy",
    "healthcheck",
    "logging",
    "provider",
    build=_trimmed(),
    healthcheck=_trimmed("interval", "timeout", "retries", "start_period", "start_interval"),
    deploy=_DEPLOY,
    networks=_each(_trimmed()),
    ports=_each(_trimmed()),
    volumes=_each(_MOUNT),
    configs=_GRANTED,
    secrets=_GRANTED,
    logging=_trimmed(),
    blkio_config=_trimmed(),
    develop=_trimmed("watch", watch=_each(_trimmed())),
    post_start=_HOOKS,
    pre_stop=_HOOKS,
    pre_start=_HOOKS,
)
"""A service in its normal form, without what says nothing."""
RESOURCE: Form = _trimmed("enable_ipv4", "enable_ipv6", "content", "name", ipam=_trimmed())
"""A network, volume, config or secret."""
