"""What the headers of a plain tar say: `python -m agent.trees.headers ARCHIVE`.

The reply is {"entries": [{"name", "type", "mode", "uid", "gid", "size", "mtime", "linkname", "devmajor", "devminor",
"offset"}]} in the archive's order: *type* is the typeflag, *mtime* in nanoseconds, *offset* where the content begins. Source:
POSIX.1-2017, pax, "ustar Interchange Format".
"""

from __future__ import annotations

import sys
from typing import BinaryIO

from agent.trees import confine, sandbox
from agent.trees.errors import TreeError
from agent.trees.members import MAX_MEMBERS, entries


def listed(archive: BinaryIO) -> confine.Reply:
    """The reply for the open file *archive*. Raises TreeError."""
    found = entries(archive)
    if len(found) > MAX_MEMBERS:
        raise TreeError(f"the archive has more than {MAX_MEMBERS} entries")
    return {
        "entries": [
            {
                "name": entry.name,
                "type": entry.type.decode("latin-1"),
                "mode": entry.mode,
                "uid": entry.uid,
                "gid": entry.gid,
                "size": entry.size if entry.isreg() else 0,
                "mtime": int(entry.mtime * 1_000_000_000),
                "linkname": entry.linkname,
                "devmajor": entry.devmajor,
                "devminor": entry.devminor,
                "offset": entry.offset_data,
            }
            for entry in found
        ]
    }


def main(archive: str) -> int:
    """List *archive*, confined; answers on standard output, returns the exit status."""
    try:
        file = open(archive, "rb")  # noqa: SIM115 - the child reads it
    except OSError as error:
        return confine.answer({"error": f"{error.filename} cannot be opened: {error.strerror}", "status": 500})
    return confine.answer(confine.run(lambda: listed(file), [], calls=sandbox.READ_CALLS, capabilities=()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
