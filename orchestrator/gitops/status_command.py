"""The command that a repository runs after each outcome, as to set a commit's status on a forge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from orchestrator.gitops.model import Repo, SyncOutcome

TIMEOUT_S = 30.0
LONGEST = 4096
"""Characters of the message: an environment has a limit (execve(2))."""
log = logging.getLogger(__name__)


async def run(repo: Repo, outcome: SyncOutcome, addresses: Sequence[str] = ()) -> None:
    """Run the status command of *repo*, if it has one, with PYSTACK_REPO, _BRANCH, _COMMIT, _PHASE, _MESSAGE and _ADDRESS
    (where the stacks answer) in its environment.

    A command that fails, or takes too long, is only logged."""
    if not repo.status_command:
        return
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYSTACK_REPO": repo.name,
        "PYSTACK_BRANCH": repo.branch,
        "PYSTACK_ADDRESS": "\n".join(addresses)[:LONGEST],
        "PYSTACK_COMMIT": outcome.commit.id,
        "PYSTACK_PHASE": outcome.phase,
        "PYSTACK_MESSAGE": outcome.message[:LONGEST],
    }
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        repo.status_command,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            code = await process.wait()
        if code:
            log.warning("repository %s: the status command ended with exit status %s", repo.name, code)
    except TimeoutError:
        process.kill()
        log.warning("repository %s: the status command did not end within %g s", repo.name, TIMEOUT_S)
