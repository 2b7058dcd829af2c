"""Whether the content of volumes is kept elsewhere: what `doctor` says of it."""

from __future__ import annotations

from agent.contract.wire import WireStruct
from orchestrator.server.backups.sources import BackupSources, owner
from orchestrator.server.jobs.book import RunBook
from orchestrator.server.state import ClusterState


class BackupHealth(WireStruct, frozen=True, kw_only=True):
    """What there is to say of *target*; *fix* where there is something to do."""

    target: str
    ok: bool
    detail: str
    fix: str = ""


def backup_health(state: ClusterState, sources: BackupSources, book: RunBook) -> list[BackupHealth]:
    """A row for each volume with backups, and one for all that have none, which is not a fault."""
    out, known = [], {(stack, volume.key) for stack, volume, _ in sources.declared()}
    for stack, volume, _ in sources.declared():
        for kind in ("backup", "verify"):
            ended = [r for r in book.of(*owner(stack, volume.key, kind)) if r.state in ("succeeded", "failed", "missed")]
            if not ended:
                continue
            last = ended[-1]
            message = last.reason or "; ".join(line for t in last.tasks for line in t.output)
            out.append(
                BackupHealth(
                    target=f"{volume.name}: {kind}",
                    ok=last.state == "succeeded",
                    detail=f"the last one {last.state}: {message}" if last.state != "succeeded" else message,
                    fix="" if last.state == "succeeded" else f"mend that, then `pystack volume {kind} {volume.name}`",
                )
            )
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
