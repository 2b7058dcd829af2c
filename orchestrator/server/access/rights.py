"""Which right each route needs, and of what: one table. A route that it lacks is an admin's (`tests/server/test_access.py`
finds it).

The scope says how a caller who is limited to some stacks is held to them:

- `stack`: the route's path names the stack;
- `body`: its body does (`stack.name`), and says what the stack is;
- `shown`: its answer is left with what the caller's stacks have (`guard.sees`);
- `cluster`: it is about more than one stack, and for those alone who are not limited;
- `all`: there is nothing of a stack in it;
- `engine`: a node's Engine API, see `engine_need`;
- `exec`: its path names something that was started in a container, by the ID of an exec.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from orchestrator.server.access.model import Right

Scope = Literal["stack", "body", "shown", "cluster", "all", "engine", "exec"]


class Need(NamedTuple):
    """What a route needs. *changes*: it is written to the log of changes; *open*: nobody must be signed in."""

    right: Right
    scope: Scope
    changes: bool = False
    open: bool = False


LOOK_ALL, LOOK_SHOWN = Need("look", "all"), Need("look", "shown")
LOOK_STACK, LOOK_CLUSTER = Need("look", "stack"), Need("look", "cluster")
OPERATE_STACK, OPERATE_CLUSTER = Need("operate", "stack", True), Need("operate", "cluster", True)
ADMIN, ADMIN_LOOK = Need("administer", "cluster", True), Need("administer", "cluster")
OPEN = Need("look", "all", open=True)
UNKNOWN = ADMIN
"""Of a route that is not in the table."""

NEEDS: dict[tuple[str, str], Need] = {
    ("GET", "/v1/version"): LOOK_ALL,
    ("GET", "/v1/openapi.json"): LOOK_ALL,
    ("POST", "/v1/shutdown"): ADMIN,
    ("GET", "/v1/stacks"): LOOK_SHOWN,
    ("GET", "/v1/stacks/{stack}"): LOOK_STACK,
    ("GET", "/v1/stacks/{stack}/tasks"): LOOK_STACK,
    ("GET", "/v1/doctor"): LOOK_CLUSTER,
    ("GET", "/v1/store"): ADMIN_LOOK,
    ("POST", "/v1/cluster/backup"): ADMIN,
    ("POST", "/v1/cluster/restore"): ADMIN,
    ("POST", "/v1/volumes/{volume}/move"): OPERATE_CLUSTER,
    ("POST", "/v1/volumes/{volume}/{verb:backup|verify}"): OPERATE_CLUSTER,
    ("GET", "/v1/volumes/{volume}/snapshots"): LOOK_CLUSTER,
    ("POST", "/v1/volumes/{volume}/restore"): OPERATE_CLUSTER,
    ("GET", "/v1/{kind:config|secret}s"): LOOK_CLUSTER,
    ("GET", "/v1/{kind:config|secret}s/{name}"): LOOK_CLUSTER,
    ("PUT", "/v1/{kind:config|secret}s/{name}"): OPERATE_CLUSTER,
    ("DELETE", "/v1/{kind:config|secret}s/{name}"): OPERATE_CLUSTER,
    ("POST", "/v1/images/registry"): OPERATE_CLUSTER,
    ("POST", "/v1/plan"): Need("look", "body"),
    ("POST", "/v1/up"): Need("operate", "body", True),
    ("POST", "/v1/apply"): Need("operate", "body", True),
    ("GET", "/v1/stacks/{stack}/history"): LOOK_STACK,
    ("POST", "/v1/stacks/{stack}/plan"): LOOK_STACK,
    ("POST", "/v1/stacks/{stack}/rollback"): OPERATE_STACK,
    ("POST", "/v1/stacks/{stack}/down"): OPERATE_STACK,
    ("POST", "/v1/stacks/{stack}/{verb:stop|start|restart}"): OPERATE_STACK,
    ("POST", "/v1/stacks/{stack}/claim"): OPERATE_STACK,
    ("POST", "/v1/stacks/{stack}/rm"): OPERATE_STACK,
    ("POST", "/v1/stacks/{stack}/oneoff"): Need("operate", "cluster", True),  # it says what its container is
    ("DELETE", "/v1/stacks/{stack}/oneoff/{oneoff}"): OPERATE_STACK,
    ("GET", "/v1/stacks/{stack}/services/{service}/why"): LOOK_STACK,
    ("GET", "/v1/stacks/{stack}/rollout"): LOOK_STACK,
    ("POST", "/v1/stacks/{stack}/rollout/watch"): LOOK_STACK,
    ("POST", "/v1/stacks/{stack}/rollout/pause"): OPERATE_STACK,
    ("POST", "/v1/stacks/{stack}/rollout/resume"): OPERATE_STACK,
    ("POST", "/v1/stacks/{stack}/rollout/promote"): OPERATE_STACK,
    ("POST", "/v1/stacks/{stack}/rollout/abort"): OPERATE_STACK,
    ("POST", "/v1/stacks/{stack}/services/{service}/set"): OPERATE_STACK,
    ("GET", "/v1/stacks/{stack}/runs"): LOOK_STACK,
    ("GET", "/v1/autoscale"): LOOK_SHOWN,
    ("POST", "/v1/stacks/{stack}/autoscale/{service}/{verb:pause|resume}"): OPERATE_STACK,
    ("GET", "/v1/schedules"): LOOK_SHOWN,
    ("POST", "/v1/stacks/{stack}/schedules/{service}/run"): OPERATE_STACK,
    ("POST", "/v1/stacks/{stack}/schedules/{service}/{verb:pause|resume}"): OPERATE_STACK,
    ("GET", "/v1/events"): LOOK_SHOWN,
    ("GET", "/v1/rebalance"): LOOK_CLUSTER,
    ("POST", "/v1/rebalance"): OPERATE_CLUSTER,
    ("GET", "/v1/nodes"): LOOK_ALL,
    ("POST", "/v1/nodes"): ADMIN,
    ("GET", "/v1/nodes/{node}"): LOOK_ALL,
    ("PATCH", "/v1/nodes/{node}"): ADMIN,
    ("DELETE", "/v1/nodes/{node}"): ADMIN,
    ("POST", "/v1/nodes/{node}/upgrade"): ADMIN,
    ("POST", "/v1/nodes/{node}/rotate"): ADMIN,
    ("GET", "/v1/node-tokens"): ADMIN_LOOK,
    ("POST", "/v1/node-tokens"): ADMIN,
    ("DELETE", "/v1/node-tokens/{name}"): ADMIN,
    ("POST", "/v1/nodes/{node}/ship"): ADMIN,
    ("POST", "/v1/nodes/{node}/drain"): OPERATE_CLUSTER,
    ("POST", "/v1/nodes/{node}/taint"): OPERATE_CLUSTER,
    ("*", "/v1/nodes/{node}/engine/{path:.*}"): Need("look", "engine"),
    ("GET", "/v1/users"): ADMIN_LOOK,
    ("PUT", "/v1/users/{name}"): ADMIN,
    ("DELETE", "/v1/users/{name}"): ADMIN,
    ("GET", "/v1/tokens"): ADMIN_LOOK,
    ("PUT", "/v1/tokens/{name}"): ADMIN,
    ("DELETE", "/v1/tokens/{name}"): ADMIN,
    ("GET", "/v1/audit-log"): ADMIN_LOOK,
    ("GET", "/v1/session"): LOOK_ALL,
    ("POST", "/v1/session"): OPEN,  # with a password, or what a link has
    ("DELETE", "/v1/session"): LOOK_ALL,
    ("GET", "/v1/session/ways"): OPEN,
    ("GET", "/v1/session/oidc"): OPEN,
    ("GET", "/v1/session/oidc/callback"): OPEN,
    ("POST", "/v1/session/link"): LOOK_ALL,
    ("POST", "/v1/session/connection"): LOOK_ALL,
    ("*", "/{path}"): OPEN,  # of a server that does not lead: it says so to all
    # of gitops, ingress and metrics
    ("GET", "/v1/servers"): LOOK_CLUSTER,
    ("POST", "/v1/servers"): ADMIN,
    ("POST", "/v1/servers/{server}/promote"): ADMIN,
    ("DELETE", "/v1/servers/{server}"): ADMIN,
    ("GET", "/v1/gitops"): LOOK_CLUSTER,
    ("POST", "/v1/gitops"): ADMIN,
    ("GET", "/v1/gitops/{name}"): LOOK_CLUSTER,
    ("DELETE", "/v1/gitops/{name}"): ADMIN,
    ("GET", "/v1/gitops/{name}/diff"): LOOK_CLUSTER,
    ("PUT", "/v1/gitops/{name}/sync"): OPERATE_CLUSTER,
    ("PUT", "/v1/gitops/{name}/approve"): OPERATE_CLUSTER,
    ("PUT", "/v1/gitops/{name}/pause"): OPERATE_CLUSTER,
    ("PUT", "/v1/gitops/{name}/resume"): OPERATE_CLUSTER,
    ("GET", "/v1/ingress"): LOOK_CLUSTER,
    ("POST", "/v1/ingress"): ADMIN,
    ("POST", "/v1/ingress/down"): ADMIN,
    ("GET", "/v1/ingress/ca"): LOOK_ALL,
    ("GET", "/metrics"): LOOK_CLUSTER,
    ("GET", "/v1/notify"): ADMIN_LOOK,
    ("POST", "/v1/notify/retry"): ADMIN,
    ("POST", "/v1/notify/test"): ADMIN,
    ("GET", "/ui"): OPEN,
    ("GET", "/ui/{path:.*}"): OPEN,
    ("GET", "/v1/live"): LOOK_SHOWN,
    ("POST", "/v1/stackfile"): LOOK_ALL,
    ("GET", "/v1/stacks/{stack}/tasks/{task}/logs"): LOOK_STACK,
    ("GET", "/v1/stacks/{stack}/tasks/{task}/stats"): LOOK_STACK,
    ("GET", "/v1/stacks/{stack}/usage"): LOOK_STACK,
    ("GET", "/v1/nodes/{node}/usage"): LOOK_ALL,
    ("GET", "/v1/stacks/{stack}/tasks/{task}/shell"): OPERATE_STACK,
    ("GET", "/v1/sd"): LOOK_CLUSTER,
    ("GET", "/v1/sd/nodes"): LOOK_CLUSTER,
    ("POST", "/v1/monitoring"): ADMIN,
    ("POST", "/v1/monitoring/down"): ADMIN,
}

_EXPRESSION = re.compile(r"\{(\w+):[^}]*\}")


def plain(path: str) -> str:
    """*path* of a route without the expressions of its parts, as a router names it."""
    return _EXPRESSION.sub(r"{\1}", path)


_BY_PLAIN = {(method, plain(path)): need for (method, path), need in NEEDS.items()}
REPAIR = Need("operate", "cluster", True)
"""`GET /v1/doctor?repair=1`."""
OF_CONTAINER = re.compile(r"/containers/([A-Za-z0-9][A-Za-z0-9_.-]*)/(json|logs|stats|top)")
INTO = re.compile(r"/containers/([0-9a-f]{64})/(exec|attach|resize|wait|archive)")
"""What goes into one container. Its whole ID: a name is one node's, and may be another container's on the next."""
STARTED = re.compile(r"/exec/([0-9a-f]{64})/(start|resize|json)")
OF_NODE = re.compile(r"/(_ping|version|info|images/json|containers/json|networks|volumes|system/df|events|metrics)")
INSIDE = re.compile(r"/(containers|exec|images|networks|volumes|build|commit|distribution|auth|system)(/|$)")


def need_of(method: str, path: str) -> Need:
    """What the route (*method*, *path*), as in a table of routes, needs."""
    verb = "GET" if method == "HEAD" else method
    return _BY_PLAIN.get((verb, plain(path))) or _BY_PLAIN.get(("*", plain(path))) or UNKNOWN


def engine_need(method: str, path: str) -> tuple[Need, str]:
    """What a request to a node's Engine API needs, and the container that it is about, or the exec; "" for none.

    *path* is as it was sent: what has escapes, or a form that is not in a list, is an admin's. Who is limited to stacks has
    of it what looks at one container alone, or goes into it, if it is theirs. To change is to be root on the node: a container
    can be made with any rights."""
    asked = re.sub(r"^/v1\.\d+(?=/)", "", path)
    strange = ".." in asked or "%" in asked or "//" in asked
    if not strange and method in ("GET", "HEAD"):
        if found := OF_CONTAINER.fullmatch(asked):
            return LOOK_STACK, found[1]
        if OF_NODE.fullmatch(asked):
            return LOOK_CLUSTER, ""
    if not strange and (found := INTO.fullmatch(asked) or STARTED.fullmatch(asked)):
        scope: Scope = "exec" if asked.startswith("/exec/") else "stack"
        return Need("operate", scope, method not in ("GET", "HEAD")), found[1]
    need = OPERATE_CLUSTER if INSIDE.match(asked) and not strange else ADMIN
    return need._replace(changes=method not in ("GET", "HEAD")), ""
