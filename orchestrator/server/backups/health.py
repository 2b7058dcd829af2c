"""Whether the content of volumes is kept elsewhere: what `doctor` says of it."""

from __future__ import annotations

from agent.contract.wire import WireStruct
from orchestrator.server.backups.sources import BackupSources, owner
from orchestrator.server.jobs.book import RunBook
from orchestrator.server.jobs.records import JobRun
from orchestrator.server.state import ClusterState


class BackupHealth(WireStruct, frozen=True, kw_only=True):
    """What there is to say of *target*; *fix* where there is something to do."""

    target: str
    ok: bool
    detail: str
    fix: str = ""


def _last(volume: str, kind: str, run: JobRun) -> BackupHealth:
    """How the last *run* of *kind* ended for *volume*, which may be one of several in it."""
    own = [t for t in run.tasks if t.name == volume]
    ok = not any(t.reason for t in own) if own else run.state == "succeeded"
    message = "; ".join(line for t in own for line in t.output)
    why = "; ".join(t.reason for t in own if t.reason) or run.reason
    return BackupHealth(
        target=f"{volume}: {kind}",
        ok=ok,
        detail=message if ok else f"the last one {'failed' if own else run.state}: {why}",
        fix="" if ok else f"mend that, then `pystack volume {kind} {volume}`",
    )


def backup_health(state: ClusterState, sources: BackupSources, book: RunBook) -> list[BackupHealth]:
    """A row for each volume with backups, and one for all that have none, which is not a fault."""
    out, known = [], {(stack, volume.key) for stack, volume, _ in sources.declared()}
    for stack, declared, _ in sources.declared():
        names = [v.name for v in sources.volumes(stack, declared.key)] or [declared.name]
        for kind in ("backup", "verify"):
            ended = [r for r in book.of(*owner(stack, declared.key, kind)) if r.state in ("succeeded", "failed", "missed")]
            of_each = ((name, [r for r in ended if r.part in ("", name)]) for name in names)
            out += [_last(name, kind, mine[-1]) for name, mine in of_each if mine]
    bare = sorted(v.name for v in state.volumes.values() if v.stack and not v.external and (v.stack, v.key) not in known)
    if bare:
        out.append(
            BackupHealth(
                target="volumes",
                ok=True,
                detail=f"without a backup: {', '.join(bare)}",
                fix="x-backup in the stack file keeps their content elsewhere too",
            )
        )
    return out
