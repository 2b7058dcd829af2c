"""Three real etcd members on loopback, with TLS."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from orchestrator.store.etcd.address import Address
from tests.ports import free_port

TRIES = 5


class Members:
    """*directory* holds their data and certificates."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports: list[int] = []
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        _certificates(directory)
        for _ in range(TRIES):
            self.ports = [free_port() for _ in range(6)]
            for number in range(3):
                self.start(number)
            if self.wait():
                return
            self.stop()  # a port was taken between the asking and the listening
            for number in range(3):
                shutil.rmtree(directory / f"m{number}", ignore_errors=True)
        raise AssertionError(f"etcd does not start: {self.said()}")

    def start(self, number: int) -> None:
        data, files = self.directory / f"m{number}", self.directory
        urls = [f"https://127.0.0.1:{p}" for p in self.ports]
        cluster = ",".join(f"m{n}={urls[n + 3]}" for n in range(3))
        tls = [
            word
            for kind in ("", "peer-")
            for word in (
                f"--{kind}cert-file={files}/server.pem",
                f"--{kind}key-file={files}/server.key",
                f"--{kind}trusted-ca-file={files}/ca.pem",
                f"--{kind}client-cert-auth",
            )
        ]
        with (self.directory / f"m{number}.log").open("ab") as log:
            self.processes[number] = subprocess.Popen(
                [
                    "etcd",
                    "--name",
                    f"m{number}",
                    "--data-dir",
                    str(data),
                    "--listen-client-urls",
                    urls[number],
                    "--advertise-client-urls",
                    urls[number],
                    "--listen-peer-urls",
                    urls[number + 3],
                    "--initial-advertise-peer-urls",
                    urls[number + 3],
                    "--initial-cluster",
                    cluster,
                    "--initial-cluster-state",
                    "new",
                    "--logger",
                    "zap",
                    *tls,
                ],
                stdout=log,
                stderr=log,
            )

    def wait(self) -> bool:
        """Whether all answer; False once one has ended."""
        until = time.monotonic() + 120  # a disk that is busy for other tests makes each of its writes wait
        while subprocess.run([*self.ctl(), "endpoint", "health"], capture_output=True, check=False).returncode:
            if any(process.poll() is not None for process in self.processes.values()):
                return False
            assert time.monotonic() < until, f"etcd does not answer: {self.said()}"
            time.sleep(0.1)
        return True

    def said(self) -> str:
        """The last lines of each member's log."""
        return "\n".join(f"m{n}: {(self.directory / f'm{n}.log').read_text()[-1500:]}" for n in range(3))

    def ctl(self) -> list[str]:
        files = self.directory
        return [
            "env",
            "ETCDCTL_API=3",
            "etcdctl",
            "--endpoints",
            ",".join(f"https://127.0.0.1:{p}" for p in self.ports[:3]),
            "--cacert",
            f"{files}/ca.pem",
            "--cert",
            f"{files}/client.pem",
            "--key",
            f"{files}/client.key",
        ]

    def leader(self) -> int:
        done = subprocess.run([*self.ctl(), "endpoint", "status"], capture_output=True, text=True, check=True)
        line = next(line for line in done.stdout.splitlines() if line.split(", ")[4] == "true")
        return self.ports.index(int(line.split(",")[0].rpartition(":")[2]))

    def address(self, prefix: str) -> Address:
        files = self.directory
        members = ",".join(f"127.0.0.1:{p}" for p in self.ports[:3])
        return Address.parse(
            f"etcd://{members}/{prefix}", ca=f"{files}/ca.pem", cert=f"{files}/client.pem", key=f"{files}/client.key"
        )

    def signal(self, number: int, what: signal.Signals) -> None:
        self.processes[number].send_signal(what)
        if what == signal.SIGKILL:
            self.processes[number].wait()
        if what == signal.SIGSTOP:
            os.waitpid(self.processes[number].pid, os.WUNTRACED)  # until all its threads stand still

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


def _certificates(directory: Path) -> None:
    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)

    openssl(
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=ca",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
    )
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n")
    for name in ("server", "client"):
        openssl(
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
        )
        openssl(
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "names",
            "-out",
            f"{name}.pem",
        )
