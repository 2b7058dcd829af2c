"""The control plane's REST API, version 1: every route is a row, and the OpenAPI document is made from the rows."""

from __future__ import annotations

from aiohttp import web

from agent.contract.task import Task
from agent.contract.trust import RegistryImage
from orchestrator.placement.explain import Why
from orchestrator.placement.rebalance import Move
from orchestrator.planning.state import Plan
from orchestrator.server.access.log import AuditLine
from orchestrator.server.api import (
    access,
    autoscale,
    claims,
    cluster_backup,
    contents,
    jobs,
    node_tokens,
    nodes,
    rollouts,
    stacks,
    system,
    volumes,
)
from orchestrator.server.api.extension import Route
from orchestrator.server.api.responses import json_response
from orchestrator.server.backups.restore import RestoreRequest
from orchestrator.server.cluster_backup import Restored
from orchestrator.server.events import Event, TaskChange
from orchestrator.server.membership import NodeUpdateRequest
from orchestrator.server.node_add import NodeAddRequest
from orchestrator.server.openapi import StreamOf, document
from orchestrator.server.records import ActRequest, SavedPlan
from orchestrator.server.service_set import SetRequest


async def openapi(request: web.Request) -> web.Response:
    """This document."""
    table = request.app[ROUTE_TABLE]
    return json_response(document(table))


ROUTE_TABLE: web.AppKey[tuple[Route, ...]] = web.AppKey("route_table", tuple)
"""All rows of an application: ROUTES and those of its extensions."""
ROUTES: tuple[Route, ...] = (
    ("GET", "/v1/version", system.version, None, system.Version),
    ("GET", "/v1/openapi.json", openapi, None, None),
    ("POST", "/v1/shutdown", system.shutdown, None, None),
    ("GET", "/v1/stacks", stacks.list_stacks, None, list[stacks.StackRow]),
    ("GET", "/v1/stacks/{stack}", stacks.get_stack, None, None),
    ("GET", "/v1/stacks/{stack}/tasks", stacks.list_tasks, None, list[stacks.TaskRow]),
    ("GET", "/v1/doctor", system.doctor, None, list[system.CheckRow]),
    ("GET", "/v1/store", system.dump_store, None, None),
    ("POST", "/v1/cluster/backup", cluster_backup.back_up_cluster, cluster_backup.ClusterBackupRequest, None),
    ("POST", "/v1/cluster/restore", cluster_backup.restore_cluster, cluster_backup.ClusterRestoreRequest, Restored),
    ("POST", "/v1/volumes/{volume}/move", volumes.move_a_volume, volumes.MoveVolumeRequest, StreamOf(Event)),
    ("POST", "/v1/volumes/{volume}/{verb:backup|verify}", volumes.run_backup, None, StreamOf(Event)),
    ("GET", "/v1/volumes/{volume}/snapshots", volumes.list_snapshots, None, list[volumes.SnapshotRow]),
    ("POST", "/v1/volumes/{volume}/restore", volumes.restore_a_volume, RestoreRequest, StreamOf(Event)),
    ("GET", "/v1/{kind:config|secret}s", contents.list_contents, None, list[contents.ContentRow]),
    ("GET", "/v1/{kind:config|secret}s/{name}", contents.get_contents, None, contents.ContentRow),
    ("PUT", "/v1/{kind:config|secret}s/{name}", contents.put_contents, None, contents.ContentRow),
    ("DELETE", "/v1/{kind:config|secret}s/{name}", contents.remove_contents, None, None),
    ("POST", "/v1/images/registry", system.images_at_registries, None, list[RegistryImage]),
    ("POST", "/v1/plan", stacks.plan, stacks.UpRequest, Plan),
    ("POST", "/v1/up", stacks.up, stacks.UpRequest, StreamOf(Event)),
    ("POST", "/v1/apply", stacks.apply, SavedPlan, StreamOf(Event)),
    ("GET", "/v1/stacks/{stack}/history", stacks.history, None, list[stacks.RevisionRow]),
    ("POST", "/v1/stacks/{stack}/plan", stacks.plan_rollback, stacks.RollbackRequest, Plan),
    ("POST", "/v1/stacks/{stack}/rollback", stacks.rollback, stacks.RollbackRequest, StreamOf(Event)),
    ("POST", "/v1/stacks/{stack}/down", stacks.down, stacks.DownRequest, StreamOf(Event)),
    ("POST", "/v1/stacks/{stack}/{verb:stop|start|restart}", stacks.act, ActRequest, StreamOf(Event)),
    ("POST", "/v1/stacks/{stack}/claim", claims.claim_stack, claims.ClaimRequest, None),
    ("POST", "/v1/stacks/{stack}/rm", stacks.remove, stacks.RemoveRequest, StreamOf(Event)),
    ("POST", "/v1/stacks/{stack}/oneoff", stacks.create_oneoff, stacks.OneoffRequest, Task),
    ("DELETE", "/v1/stacks/{stack}/oneoff/{oneoff}", stacks.delete_oneoff, None, None),
    ("GET", "/v1/stacks/{stack}/services/{service}/why", stacks.why, None, Why),
    ("GET", "/v1/stacks/{stack}/rollout", rollouts.get_rollout, None, rollouts.RolloutRow),
    ("POST", "/v1/stacks/{stack}/rollout/watch", rollouts.watch_rollout, None, StreamOf(Event)),
    ("POST", "/v1/stacks/{stack}/rollout/pause", rollouts.pause_rollout, None, rollouts.RolloutRow),
    ("POST", "/v1/stacks/{stack}/rollout/resume", rollouts.resume_rollout, None, StreamOf(Event)),
    ("POST", "/v1/stacks/{stack}/rollout/promote", rollouts.promote_rollout, None, rollouts.RolloutRow),
    ("POST", "/v1/stacks/{stack}/rollout/abort", rollouts.abort_rollout, None, StreamOf(Event)),
    ("POST", "/v1/stacks/{stack}/services/{service}/set", rollouts.set_a_service, SetRequest, StreamOf(Event)),
    ("GET", "/v1/stacks/{stack}/runs", jobs.list_runs, None, list[jobs.RunRow]),
    ("GET", "/v1/autoscale", autoscale.list_autoscaled, None, list[autoscale.AutoscaleRow]),
    (
        "POST",
        "/v1/stacks/{stack}/autoscale/{service}/{verb:pause|resume}",
        autoscale.switch_autoscale,
        None,
        autoscale.AutoscaleRow,
    ),
    ("GET", "/v1/schedules", jobs.list_schedules, None, list[jobs.ScheduleRow]),
    ("POST", "/v1/stacks/{stack}/schedules/{service}/run", jobs.run_now, None, StreamOf(Event)),
    ("POST", "/v1/stacks/{stack}/schedules/{service}/{verb:pause|resume}", jobs.pause_or_resume, None, jobs.ScheduleRow),
    ("GET", "/v1/events", system.stream_events, None, StreamOf(TaskChange)),
    ("GET", "/v1/rebalance", nodes.proposed_moves, None, list[Move]),
    ("POST", "/v1/rebalance", nodes.rebalance, None, StreamOf(Event)),
    ("GET", "/v1/nodes", nodes.list_nodes, None, list[nodes.NodeRow]),
    ("POST", "/v1/nodes", nodes.add_node, NodeAddRequest, nodes.NodeRow),
    ("GET", "/v1/nodes/{node}", nodes.get_node, None, nodes.NodeRow),
    ("PATCH", "/v1/nodes/{node}", nodes.change_node, NodeUpdateRequest, nodes.NodeRow),
    ("DELETE", "/v1/nodes/{node}", nodes.remove_node, None, None),
    ("POST", "/v1/nodes/{node}/upgrade", nodes.upgrade, None, nodes.NodeRow),
    ("POST", "/v1/nodes/{node}/drain", nodes.drain_node, None, StreamOf(Event)),
    ("POST", "/v1/nodes/{node}/taint", nodes.taint_node, NodeUpdateRequest, StreamOf(Event)),
    ("POST", "/v1/nodes/{node}/ship", nodes.ship_image, nodes.ShipRequest, None),
    ("*", "/v1/nodes/{node}/engine/{path:.*}", nodes.engine, None, None),
    ("GET", "/v1/users", access.list_users, None, list[access.UserRow]),
    ("PUT", "/v1/users/{name}", access.put_user, access.UserRequest, access.UserRow),
    ("DELETE", "/v1/users/{name}", access.remove_user, None, None),
    ("GET", "/v1/tokens", access.list_tokens, None, list[access.TokenRow]),
    ("PUT", "/v1/tokens/{name}", access.create_token, access.TokenRequest, access.TokenRow),
    ("DELETE", "/v1/tokens/{name}", access.remove_token, None, None),
    ("GET", "/v1/node-tokens", node_tokens.list_node_tokens, None, list[node_tokens.NodeTokenRow]),
    ("POST", "/v1/node-tokens", node_tokens.create_node_token, node_tokens.NodeTokenRequest, node_tokens.NodeTokenRow),
    ("DELETE", "/v1/node-tokens/{name}", node_tokens.remove_node_token, None, None),
    ("POST", "/v1/nodes/{node}/rotate", node_tokens.rotate_node_certificate, None, None),
    ("GET", "/v1/audit-log", access.audit_log, None, list[AuditLine]),
    ("GET", "/v1/session", access.get_session, None, access.SessionRow),
    ("POST", "/v1/session", access.sign_in, access.SignInRequest, access.SessionRow),
    ("DELETE", "/v1/session", access.sign_out, None, None),
    ("POST", "/v1/session/link", access.make_link, None, access.Link),
    ("POST", "/v1/session/connection", access.connect_page, None, None),
)
