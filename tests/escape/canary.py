"""A process of the host's that has a secret everywhere where one can be: `python3 canary.py TOKEN PATH ADDRESS`: the file PATH
has it, and it listens at ADDRESS, which is the host's.

It prints where, as one line of JSON, and ends when its standard input does."""

import ctypes
import json
import os
import signal
import socket
import sys
import threading

token, path, address = sys.argv[1:]
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open(path, os.O_RDONLY)
secret = os.read(fd, 100)
memory = ctypes.create_string_buffer(secret, 100)
segment = libc.shmget(0, 4096, 0o600)  # IPC_PRIVATE: found by its number
libc.shmat.restype = ctypes.c_void_p
ctypes.memmove(libc.shmat(segment, None, 0), secret, len(secret))
shared = f"/dev/shm/{token}"
with open(os.open(shared, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
    file.write(secret)


def serve(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        connection.sendall(secret)
        connection.close()


abstract = socket.socket(socket.AF_UNIX)
abstract.bind(f"\0{token}")
abstract.listen()
loopback, lan = socket.create_server(("127.0.0.1", 0)), socket.create_server((address, 0))
for listener in (abstract, loopback, lan):
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
with open("/sys/class/net/eth0/address") as address_file:
    mac = address_file.read().strip()
print(
    json.dumps(
        {
            "address": ctypes.addressof(memory),
            "fd": fd,
            "shm": segment,
            "port": loopback.getsockname()[1],
            "lan": lan.getsockname()[1],
            "mac": mac,
            "host": os.uname().nodename,
        }
    ),
    flush=True,
)
try:
    sys.stdin.read()
finally:
    os.unlink(shared)
    libc.shmctl(segment, 0, None)  # IPC_RMID
