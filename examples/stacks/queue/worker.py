"""Takes jobs off the queue, does them, and counts who did them; a job that is taken when its worker ends is put back."""

import hashlib
import os
import signal
import socket
import sys

import redis

queue = redis.Redis("redis")
own = f"taken:{socket.gethostname()}"
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while queue.lmove(own, "jobs", "LEFT", "LEFT"):  # of one of this name that was killed
    pass
while True:
    job = queue.blmove("jobs", own, 5, "RIGHT", "LEFT")
    if job is None:
        continue
    hashlib.scrypt(job, salt=own.encode(), n=1 << 12, r=8, p=1)  # its work: some ten milliseconds of a processor
    with queue.pipeline() as done:
        done.hincrby("done", os.environ.get("WORKER", socket.gethostname())).lrem(own, 1, job).execute()
