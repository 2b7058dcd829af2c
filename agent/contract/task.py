"""A replica of a service on its node."""

from __future__ import annotations

from typing import Literal

from agent.contract.container import Container
from agent.contract.trust import ImageTrust
from agent.contract.wire import WireStruct

Desired = Literal["running", "stopped", "waiting", "oneoff"]


class Task(WireStruct, frozen=True, kw_only=True):
    """One replica of a service, placed on this node.

    *desired* "waiting" means: be ready (image pulled), do not start yet; "oneoff" is a container that somebody runs by hand
    (`pystack run`) on the stack's networks: it has addresses, and no node keeps it going. *generation* counts ordered
    restarts: a node restarts a task whose generation it has not seen. One that is to *renew* leaves its predecessor's anonymous
    volumes behind. *where* is the service's place in the stack file. *run* is set where it belongs to one run of its service
    (of a schedule, of a hook), which no plan makes or removes. *definition* tells tasks of one definition of their service from
    those of another. Tasks with a *share* get that percentage of their service's new connections together; without, the rest,
    all alike."""

    name: str
    stack: str
    service: str
    container: Container
    node: str = ""
    container_name: str = ""
    index: int = 1
    desired: Desired = "running"
    generation: int = 0
    renew: bool = False
    where: str = ""
    run: str = ""
    definition: str = ""
    share: float = -1.0
    trust: ImageTrust | None = None
    """What its images are held to at each start, beside the node's own policy."""

    @property
    def planned(self) -> bool:
        """Whether it is there because its service has replicas: neither by hand nor for one run."""
        return self.desired != "oneoff" and not self.run
