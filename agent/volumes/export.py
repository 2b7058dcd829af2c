"""One volume of this node for one other node, over the SSH server that is there.

authorized_keys names this as the only command that the other node's key may run:

    python -m agent.volumes.export FOLDER

The server runs in a view of its own (`agent.trees.view`), where / holds the volume's data at /volume and, read-only, programs
and libraries; nothing else of the node can be named there. Source: sshd(8), AUTHORIZED_KEYS FILE FORMAT; sftp-server(8).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from agent.trees import view

SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")
USERS = b"root:x:0:0:root:/volume:/usr/sbin/nologin\n"
"""The /etc/passwd for sftp-server, which looks up its user. Without nsswitch.conf libc loads no further modules."""


def main(data: Path) -> None:
    """Serve *data* by SFTP on the standard streams; exits with a message if it cannot."""
    server = next((path for path in SERVERS if os.path.exists(path)), "")
    if not server:
        sys.exit("no sftp-server is installed here: it comes with openssh-server (openssh-sftp-server)")
    if not data.is_dir():
        sys.exit(f"{data} is not there any more")
    view.enter({"volume": str(data)}, {"etc/passwd": USERS}, view.RIGHTS)
    os.execv(server, [server, "-e", "-l", "ERROR"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
