"""What an area of the fuzzer is, and how it is run: in a process of its own, watched from outside."""

from __future__ import annotations

import mmap
import os
import random
import re
import resource
import select
import signal
import struct
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from agent.trees.removal import remove_tree

HANG_S = 10.0
"""An input that takes longer is a fault."""
MEMORY = 4 << 30
"""Address space of a worker: who takes more than that for an input of some kilobytes does not bound its memory."""
BROKEN = 97
"""Exit status of a worker whose area is broken itself."""
MOST = 2000
"""Faults of an area after which it ends."""
ALIKE = 2
"""Faults that are told of those that differ in their numbers alone."""


class Fault(msgspec.Struct, frozen=True):
    """Input *index* of *area* under *seed* did what it must not."""

    area: str
    seed: int
    index: int
    what: str
    late: bool = False
    """It did not end in time."""

    def __str__(self) -> str:
        again = f"python -m tests.fuzz --only {self.area} --seed {self.seed} --index {self.index}"
        return f"{self.area}: {self.what}\n    again: {again}"


class Outcome(msgspec.Struct, frozen=True):
    """*refused* of the *inputs* ended in an error sentence, *late* were not in time at first; *peak* is in bytes."""

    inputs: int
    refused: int
    late: int
    seconds: float
    peak: int
    faults: tuple[Fault, ...]


class Area(Protocol):
    name: str
    share: float
    """Of all inputs."""

    def run(self, inputs: Iterable[int], run: Run) -> None:
        """Try the inputs of these numbers. Called once in a process, whose temporary files are in memory."""

    def tidy(self) -> None:
        """Take away what a process that was killed has left, but for temporary files."""


_STATE = struct.Struct("qdqq")


class Run:
    """What an area tells of its work. The state lies in shared memory: children of the worker tell too."""

    def __init__(self, area: str, seed: int, state: mmap.mmap, out: int) -> None:
        self.area, self.seed = area, seed
        self._state, self._out = state, out

    def rng(self, index: int) -> random.Random:
        return random.Random(f"{self.seed}:{self.area}:{index}")

    def begin(self, index: int) -> None:
        _, _, done, refused = _STATE.unpack_from(self._state)
        _STATE.pack_into(self._state, 0, index, time.monotonic(), done, refused)

    def done(self, *, refused: bool) -> None:
        index, _, done, before = _STATE.unpack_from(self._state)
        _STATE.pack_into(self._state, 0, index, time.monotonic(), done + 1, before + refused)

    def fault(self, index: int, what: str, *, late: bool = False) -> None:
        os.write(self._out, msgspec.json.encode(Fault(self.area, self.seed, index, what[:3000], late)) + b"\n")

    def judge(self, index: int, work: Callable[[], object], allowed: tuple[type[BaseException], ...]) -> object:
        """What *work* returns. An *allowed* error must be one short sentence; any other is a fault."""
        self.begin(index)
        refused = True
        try:
            result = work()
            refused = False
            return result
        except allowed as error:
            if bad := unfit(str(error)):
                self.fault(index, f"{type(error).__name__} {bad}: {str(error)[:300]!r}")
        except BaseException as error:
            self.fault(index, told(error))
        finally:
            self.done(refused=refused)
        return None


def unfit(text: str, longest: int = 2000) -> str:
    """Why *text* is nothing to tell a user; "" where it is."""
    if not text.strip():
        return "says nothing"
    if len(text) > longest:
        return f"is {len(text)} characters long"
    if "Traceback" in text:
        return "has a traceback"
    if any(not (c.isprintable() or c == "\n") or 0xD800 <= ord(c) < 0xE000 for c in text):
        return "has characters that a terminal obeys"
    return ""


def told(error: BaseException) -> str:
    """An unexpected error with where it came from."""
    where = "; ".join(
        f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)[-4:]
    )
    return f"{type(error).__name__}: {str(error)[:300]!r} at {where}"


def drive(area: Area, seed: int, inputs: range, say: Callable[[Fault], None]) -> Outcome:
    """Run *area* in workers; one that hangs or dies is told, and the next goes on behind it.

    An input that was late is tried once more by itself: only if it is late again it is a fault, and not the machine's mood."""
    started = time.monotonic()
    faults: list[Fault] = []
    late: list[Fault] = []
    alike: Counter[str] = Counter()

    def tell(fault: Fault) -> None:
        faults.append(fault)
        kind = re.sub(r"\d+", "#", fault.what)[:160]
        alike[kind] += 1
        if alike[kind] <= ALIKE:
            say(fault)

    total, refused, peak, rest = 0, 0, 0, inputs
    unfinished: set[int] = set()
    while rest and len(faults) <= MOST:
        one = _once(area, seed, rest, lambda fault: (late.append if fault.late else tell)(fault))
        total, refused, peak = total + one.done, refused + one.refused, max(peak, one.peak)
        if one.code in (0, BROKEN):
            break
        unfinished.add(one.index)
        rest = range(one.index + 1, inputs.stop)
    for fault in late:
        again: list[Fault] = []
        if fault.index >= 0:
            one = _once(area, seed, range(fault.index, fault.index + 1), again.append)
            total += one.done if fault.index in unfinished else 0
        if again or fault.index < 0:
            tell(fault)
    return Outcome(total, refused, len(late), time.monotonic() - started, peak, tuple(faults))


class _Worked(msgspec.Struct):
    """How a worker ended: at *index*, with exit status *code*."""

    index: int
    done: int
    refused: int
    peak: int
    code: int


def _once(area: Area, seed: int, inputs: range, heard: Callable[[Fault], None]) -> _Worked:
    """One worker, until it has done all *inputs*, or ends for another reason, which is a fault."""
    state = mmap.mmap(-1, mmap.PAGESIZE)
    _STATE.pack_into(state, 0, inputs[0], time.monotonic(), 0, 0)
    reader, writer = os.pipe()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm"))
    pid = os.fork()
    if pid == 0:
        tempfile.tempdir = str(folder)
        _work(area, Run(area.name, seed, state, writer), inputs)
    os.close(writer)
    why = _watch(pid, reader, state, heard)
    os.close(reader)
    _, status, used = os.wait4(pid, 0)
    index, _, done, refused = _STATE.unpack_from(state)
    state.close()
    area.tidy()
    remove_tree(folder)
    code = os.waitstatus_to_exitcode(status)
    if why:
        heard(Fault(area.name, seed, index, why, late=True))
    elif code:
        heard(Fault(area.name, seed, index, f"the worker ended with status {code}"))
    return _Worked(index, done, refused, used.ru_maxrss << 10, code)


def _work(area: Area, run: Run, inputs: Iterable[int]) -> None:
    code = BROKEN
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        area.run(inputs, run)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _watch(pid: int, reader: int, state: mmap.mmap, heard: Callable[[Fault], None]) -> str:
    """Returns when the worker has closed its end; why it was killed, or ""."""
    pending = b""
    while True:
        ready, _, _ = select.select([reader], [], [], 0.5)
        if ready:
            data = os.read(reader, 1 << 16)
            if not data:
                return ""
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                heard(msgspec.json.decode(line, type=Fault))
        elif time.monotonic() - _STATE.unpack_from(state)[1] > HANG_S:
            os.killpg(pid, signal.SIGKILL)
            return f"it was not done after {HANG_S:.0f} s"
