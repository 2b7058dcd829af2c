"""A replica of a service on its node."""

from __future__ import annotations

from typing import Literal

from agent.contract.container import Container
from agent.contract.trust import ImageTrust
from agent.contract.wire import WireStruct

Desired = Literal["running", "stopped", "waiting", "oneoff"]

LEASE_S, LAST_GRACE_S = 15.0, 3.0
"""For how long a node runs its strict tasks without an answer of the control plane, and how long they then have to end."""
STRICT_SILENCE_S = 25.0
"""After how much silence of a node its strict tasks may run elsewhere: its lease has ended by then, and they have. The rest is
for clocks that do not run equally fast, and for messages on their way."""
BOOT_WAIT_S = 15.0
"""How long a task waits for the control plane after a boot of its node, if its stack does not say."""


class Task(WireStruct, frozen=True, kw_only=True):
    """One replica of a service, placed on this node.

    *desired* "waiting" means: be ready (image pulled, container created), do not start yet; "oneoff" is a container that a
    user runs (`pystack run`) on the stack's networks: it has addresses, and no node restarts it. *generation* counts
    ordered restarts: a node restarts a task whose generation it has not seen. One that is to *renew* leaves its
    predecessor's anonymous volumes behind. *where* is the service's place in the stack file. *run* is set where it belongs
    to one run of its service (of a schedule, of a hook), which no plan makes or removes. After a boot of its node it waits
    *boot_wait_s* seconds for the control plane to say that it is still that node's, and then starts without a word; None:
    it waits for ever. *definition* tells tasks of one definition of their service from those of another. Tasks with a
    *share* get that percentage of their service's new connections together; without, the rest, all alike."""

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
    boot_wait_s: float | None = BOOT_WAIT_S
    balanced: bool = False
    """Whether connections to its service's published ports go to all of its tasks alike, and not to those of the node first."""
    run: str = ""
    definition: str = ""
    share: float = -1.0
    trust: ImageTrust | None = None
    """What its images are held to at each start, beside the node's own policy."""

    @property
    def strict(self) -> bool:
        """Whether it must never run on two nodes, not even for a moment."""
        return self.boot_wait_s is None

    @property
    def planned(self) -> bool:
        """Whether it is there because its service has replicas: neither by hand nor for one run."""
        return self.desired != "oneoff" and not self.run
