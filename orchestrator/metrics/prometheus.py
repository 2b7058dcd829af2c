"""Prometheus as a stack of the cluster: its configuration and its service. Pure.

Source: Prometheus, "Configuration" and "HTTP service discovery" (2.42).
"""

from __future__ import annotations

import json
from typing import Any

from agent.contract.container import Container, File, Mount
from agent.contract.wire import WireStruct
from orchestrator.metrics.rules import alerts
from orchestrator.stackfile.model import Placement, Service, Stack, StackContent, StackVolume, UpdateConfig

STACK = "pystack-monitoring"
SERVICE = "prometheus"
TOKEN = "monitoring.token"
"""The secret of the cluster with what Prometheus shows to servers, and (without the prefix) the token's name."""
SERVER_NAME = "pystack-server.internal"
"""The name in the certificate that servers show to Prometheus."""
USER = 65534
DATA = "/prometheus"
FOLDER = "/etc/prometheus"


class MonitoringSettings(WireStruct, frozen=True, kw_only=True):
    """The options of `pystack monitoring up`. Servers answer at *port*, which is for Prometheus; Prometheus itself answers at
    *listen* of its node, and keeps what it knows for *retention*. *constraints* choose the node, as in deploy.
    *alertmanagers* are addresses (`10.0.0.5:9093`)."""

    image: str
    port: int = 9464
    listen: str = "127.0.0.1:9090"
    retention: str = "15d"
    interval: str = "15s"
    constraints: tuple[str, ...] = ()
    alertmanagers: tuple[str, ...] = ()


def at_server(address: str, port: int) -> str:
    """`10.0.0.1:9464`, `[fd00::1]:9464`."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def configuration(settings: MonitoringSettings, servers: tuple[str, ...]) -> dict[str, Any]:
    """What Prometheus asks: *servers*, addresses of all that may lead, of which the one that does answers."""
    tls = {"ca_file": f"{FOLDER}/root.pem", "server_name": SERVER_NAME}
    # the type is said: Prometheus 2.42 sends none of its own to service discovery
    authorization = {"type": "Bearer", "credentials_file": "/run/secrets/token"}
    access = {"scheme": "https", "tls_config": tls, "authorization": authorization}
    hosts = [at_server(s, settings.port) for s in servers]

    def discovered(path: str) -> list[dict[str, Any]]:
        asked = {k: v for k, v in access.items() if k != "scheme"}
        return [{"url": f"https://{host}{path}", "refresh_interval": "15s", **asked} for host in hosts]

    managers = [{"static_configs": [{"targets": list(settings.alertmanagers)}]}] if settings.alertmanagers else []
    return {
        "global": {"scrape_interval": settings.interval, "evaluation_interval": settings.interval},
        "rule_files": [f"{FOLDER}/rules.json"],
        "alerting": {"alertmanagers": managers},
        "scrape_configs": [
            {"job_name": "pystack", **access, "static_configs": [{"targets": hosts}]},
            {"job_name": "nodes", **access, "http_sd_configs": discovered("/v1/sd/nodes")},
            {"job_name": "tasks", "http_sd_configs": discovered("/v1/sd")},
            {"job_name": "prometheus", "static_configs": [{"targets": [settings.listen]}]},
        ],
    }


def system_stack(settings: MonitoringSettings, servers: tuple[str, ...], root: str) -> Stack:
    """One Prometheus, on its node's own network: it has a way to the servers and to tasks of all networks. It may nothing that
    root may, and writes to its volume alone. *root* is the certificate that it trusts servers by."""
    made = {"prometheus.yml": configuration(settings, servers), "rules.json": alerts()}
    texts = {name: json.dumps(what, indent=1) for name, what in made.items()} | {"root.pem": root}
    where = "pystack monitoring up"
    contents = tuple(
        StackContent(kind="config", key=name, name=f"{STACK}_{name}", content=text.encode(), where=where)
        for name, text in texts.items()
    )
    token = StackContent(kind="secret", key="token", name=TOKEN, external=True, where=where)
    files = tuple(File(source=name, target=f"{FOLDER}/{name}") for name in texts)
    data = StackVolume(key="data", name=f"{STACK}_data", where=where)
    container = Container(
        image=settings.image,
        command=(
            f"--config.file={FOLDER}/prometheus.yml",
            f"--storage.tsdb.path={DATA}",
            f"--storage.tsdb.retention.time={settings.retention}",
            f"--web.listen-address={settings.listen}",
        ),
        network_mode="host",
        user=f"{USER}:{USER}",
        read_only=True,
        cap_drop=("ALL",),
        security_opt=("no-new-privileges",),
        mounts=(Mount(kind="volume", target=DATA, source=data.name),),
        files=(*files, File(source="token", target="/run/secrets/token", secret=True, mode=0o400, uid=USER, gid=USER)),
        restart="always",
        pull_policy="never",
        stop_grace_s=30.0,
    )
    service = Service(
        name=SERVICE,
        container=container,
        where=where,
        placement=Placement(constraints=settings.constraints),
        update=UpdateConfig(order="stop-first", failure_action="pause", monitor_s=2.0),
    )
    return Stack(name=STACK, services=(service,), volumes=(data,), contents=(*contents, token))
