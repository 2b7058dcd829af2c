"""Finds what is in trouble, tells it once, and sends each notice until it has arrived or is given up.

What was sent and what is on its way is in the store (`troubles/`, `outbox/`): the next leader goes on, and sends nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence

import aiohttp
import msgspec

from agent.contract.notify import Kind, NotifySettings
from agent.contract.status import TaskStatus
from orchestrator.errors import PystackError, RefusedError
from orchestrator.notify import conditions
from orchestrator.notify.channels import Channel, channels
from orchestrator.notify.conditions import HEALED, Condition
from orchestrator.notify.model import Delivery, Notice, Trouble
from orchestrator.server.plane import ControlPlane
from orchestrator.store.interface import Delete, Put, StoreError

LOOK_S = 5.0
"""How often what depends on the time alone is looked at."""
BEFORE_S = 300.0
"""What failed so long before this server led is reported too: its last leader may not have come to it."""
FIRST_S, LONGEST_S, ATTEMPTS = 5.0, 600.0, 12
"""The pauses between attempts, and their number: an hour and a half in all."""
KEPT = 500
"""Deliveries that are kept at most; the oldest dead ones give way."""
log = logging.getLogger(__name__)


class Notifier:
    """*ends* gives the ends of certificates by host."""

    def __init__(self, plane: ControlPlane, ends: Callable[[], Mapping[str, float]], settings: NotifySettings) -> None:
        self.channels: Sequence[Channel] = channels(settings)
        self.deliveries: dict[str, Delivery] = {}
        self._plane, self._ends, self._settings = plane, ends, settings
        self._troubles: dict[str, Trouble] = {}
        self._since: dict[str, float] = {}
        """Since when a condition holds, in monotonic seconds."""
        self.led = time.time()
        """Since when this server leads, in seconds since 1970."""
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def load(self) -> None:
        """Read the store. Raises StoreError."""
        for entry in await self._plane.store.scan("troubles/"):
            self._troubles[entry.key.removeprefix("troubles/")] = msgspec.json.decode(entry.value, type=Trouble)
        for entry in await self._plane.store.scan("outbox/"):
            delivery = msgspec.json.decode(entry.value, type=Delivery)
            self.deliveries[delivery.id] = delivery

    async def start(self) -> None:
        """Read the store, and begin. Raises StoreError."""
        await self.load()
        if self.channels:
            self._plane.statuses.listeners.add(self._on_status)
            self._tasks.append(asyncio.create_task(self._run(), name="notify"))

    async def close(self) -> None:
        """Stop; what is on its way is in the store."""
        self._plane.statuses.listeners.discard(self._on_status)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_status(self, status: TaskStatus) -> None:
        del status
        self._wake.set()

    async def _run(self) -> None:
        while True:
            try:
                await self.look(time.monotonic())
                await self.send_due(time.time())
            except StoreError as error:  # a full disk: the next look finds the same
                log.warning("notices wait: %s", error)
            except Exception:
                log.exception("notices")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._wake.wait()
            self._wake.clear()

    def _pause(self) -> float:
        due = min((d.next for d in self.deliveries.values() if not d.dead), default=time.time() + LOOK_S)
        return min(LOOK_S, max(0.2, due - time.time()))

    # --- what is in trouble ------------------------------------------------------------------------------------

    def found(self) -> list[Condition]:
        """What is not as it should be, now."""
        plane, since = self._plane, self.led - BEFORE_S
        away = plane.cluster.unreachable_reason
        tasks = list(plane.state.tasks.values())
        why = {t.name: conditions.trouble_of(t, plane.statuses.by_task.get(t.name), away(t.node)) for t in tasks}
        updating = [name for name, record in plane.rollouts.records.items() if record.state == "running"]
        members = plane.cluster.members.items()
        runs = (run for of_service in plane.jobs.book.runs.values() for run in of_service.values())
        return [
            *(
                Condition(kind="node_down", subject=name, text=away(name) or f"node {name} does not answer", waits=True)
                for name, member in members
                if not member.ready
            ),
            *conditions.degraded(tasks, why, updating),
            *conditions.failed_rollouts(plane.rollouts.records.values(), since),
            *conditions.failed_runs(runs, since),
            *conditions.ending_certificates(self._ends(), time.time(), self._settings.certificate_days),
        ]

    async def look(self, now: float) -> None:
        """Tell of what is new, and of what has healed. *now* is in monotonic seconds. Raises StoreError."""
        found = {condition.key: condition for condition in self.found()}
        self._since = {key: self._since.get(key, now) for key in found}
        for key, condition in found.items():
            lasts = not condition.waits or now - self._since[key] >= self._settings.after_s
            if lasts and key not in self._troubles:
                await self._report(key, condition)
        for key, trouble in list(self._troubles.items()):
            if key not in found and not self._still_unknown(trouble):
                await self._end(key, trouble)

    def _still_unknown(self, trouble: Trouble) -> bool:
        """A server that has just begun to lead lacks statuses: that a condition is not seen does not end it."""
        return time.time() - self.led < self._settings.after_s and trouble.kind in HEALED

    async def _report(self, key: str, condition: Condition) -> None:
        trouble = Trouble(kind=condition.kind, subject=condition.subject, text=condition.text, since=time.time())
        made = self.address(condition.kind, condition.subject.partition("/")[0], condition.text)
        await self._plane.store.transact(
            (), [Put(f"troubles/{key}", msgspec.json.encode(trouble)), *(self._put(d) for d in made)]
        )
        self._troubles[key] = trouble
        self.deliveries |= {d.id: d for d in made}

    async def _end(self, key: str, trouble: Trouble) -> None:
        made: list[Delivery] = []
        if kind := HEALED.get(trouble.kind):
            lasted = max(1, round(time.time() - trouble.since))
            what = f"node {trouble.subject} answers again" if kind == "node_up" else f"stack {trouble.subject} is well again"
            gone = kind == "stack_healed" and trouble.subject not in self._plane.state.stacks
            made = [] if gone else self.address(kind, trouble.subject, f"{what}, {lasted} s after the notice of the failure")
        await self._plane.store.transact((), [Delete(f"troubles/{key}"), *(self._put(d) for d in made)])
        self._troubles.pop(key, None)
        self.deliveries |= {d.id: d for d in made}

    def address(self, kind: Kind, subject: str, text: str) -> list[Delivery]:
        """A new notice, to each that wants its kind. Nothing is sent yet."""
        notice = Notice(id=os.urandom(8).hex(), kind=kind, subject=subject, text=text, time=time.time())
        return [Delivery(notice=notice, channel=c.name) for c in self.channels if not c.events or kind in c.events]

    # --- sending -----------------------------------------------------------------------------------------------

    @staticmethod
    def _put(delivery: Delivery) -> Put:
        return Put(f"outbox/{delivery.id}", msgspec.json.encode(delivery))

    async def send_due(self, now: float) -> None:
        """Send what is due at *now*, in seconds since 1970. Raises StoreError."""
        due = [d for d in self.deliveries.values() if not d.dead and d.next <= now]
        await asyncio.gather(*(self._send(d) for d in due[:64]))
        dead = sorted((d for d in self.deliveries.values() if d.dead), key=lambda d: d.notice.time)
        for delivery in dead[: max(0, len(self.deliveries) - KEPT)]:
            await self._plane.store.transact((), [Delete(f"outbox/{delivery.id}")])
            self.deliveries.pop(delivery.id, None)

    async def _send(self, delivery: Delivery) -> None:
        channel = next((c for c in self.channels if c.name == delivery.channel), None)
        problem = "config.yml names it no more" if channel is None else await attempt(channel, delivery.notice)
        if not problem:
            await self._plane.store.transact((), [Delete(f"outbox/{delivery.id}")])
            self.deliveries.pop(delivery.id, None)
            return
        attempts = delivery.attempts + 1
        pause = min(LONGEST_S, FIRST_S * 2.0 ** (attempts - 1))
        later = msgspec.structs.replace(
            delivery,
            attempts=attempts,
            next=time.time() + pause,
            problem=problem,
            dead=channel is None or attempts >= ATTEMPTS,
        )
        log.warning("notice %s by %s: %s", delivery.notice.kind, delivery.channel, problem)
        await self._plane.store.transact((), [self._put(later)])
        self.deliveries[later.id] = later

    async def retry(self, ids: Sequence[str]) -> int:
        """Try those deliveries again now, dead ones too; all if none are named. Returns how many. Raises RefusedError (404)."""
        if unknown := [i for i in ids if i not in self.deliveries]:
            raise RefusedError(f"there is no delivery {', '.join(unknown)}: `pystack notify ls`", 404)
        chosen = [self.deliveries[i] for i in ids] if ids else list(self.deliveries.values())
        for one in chosen:
            again = msgspec.structs.replace(one, attempts=0, next=0.0, dead=False)
            await self._plane.store.transact((), [self._put(again)])
            self.deliveries[again.id] = again
        self._wake.set()
        return len(chosen)

    async def test(self) -> dict[str, str]:
        """Send a notice by each way now; why it did not arrive, by the way, "" if it did. Raises RefusedError (409)."""
        if not self.channels:
            raise RefusedError("config.yml names nobody: see `notify:` in the reference of settings", 409)
        text = "this is a test: somebody asked for it with `pystack notify test`"
        notice = Notice(id=os.urandom(8).hex(), kind="test", subject=self._plane.node, text=text, time=time.time())
        problems = await asyncio.gather(*(attempt(c, notice) for c in self.channels))
        return {c.name: problem for c, problem in zip(self.channels, problems, strict=True)}


async def attempt(channel: Channel, notice: Notice) -> str:
    """Why *notice* did not go out by *channel*, "" if it did."""
    import smtplib

    try:
        await channel.send(notice)
    except TimeoutError:
        return "it takes too long"
    except smtplib.SMTPResponseException as error:
        answer = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else str(error.smtp_error)
        return f"{error.smtp_code} {answer}"
    except (PystackError, OSError, aiohttp.ClientError, smtplib.SMTPException) as error:
        return str(error) or type(error).__name__
    return ""
