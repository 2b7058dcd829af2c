"""Takes visits from a queue in Redis and adds them up."""

import socket

with socket.create_connection(("redis", 6379)) as sock:
    reply = sock.makefile("rb")

    def ask(command: bytes) -> bytes:
        """The first line of the answer of Redis."""
        sock.sendall(command + b"\r\n")
        return reply.readline()

    while True:
        if not ask(b"BRPOP queue 0").startswith(b"*2"):
            continue
        parts = [reply.readline() for _ in range(4)]
        number = int(parts[3])
        ask(b"INCRBY sum %d" % number)
        print(f"added {number}")
