"""Where the server that leads answers Prometheus: TLS on the address of its node, for those who show a token."""

from __future__ import annotations

import datetime
import socket
import ssl
import tempfile
import time
from pathlib import Path

from agent.contract.tunnel import Listener
from orchestrator.errors import PystackError
from orchestrator.metrics.prometheus import SERVER_NAME

RENEWED_S = 5 * 86_400.0
"""How long a certificate is shown; it is valid for longer."""


class ScrapeEndpoint:
    """Takes connections at *address* and *port* to the server's socket at *path*. The certificate is by the cluster's own
    authority, *root* (its certificate and key as PEM). Raises PystackError."""

    def __init__(self, address: str, port: int, path: Path, root: bytes) -> None:
        self.at = (address, port)
        self._root = root
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._since = 0.0
        self.renew(time.time())
        try:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listening = socket.create_server(self.at, family=family)
        except OSError as error:
            raise PystackError(f"{address}:{port}, where Prometheus would be answered: {error.strerror or error}") from None
        self._listener = Listener(listening, self._context, path)

    def renew(self, now: float) -> None:
        """Show another certificate from now on, if the present one was shown for RENEWED_S."""
        from orchestrator import authority

        if now - self._since < RENEWED_S:
            return
        pair = authority.issue(self._root, SERVER_NAME, datetime.datetime.now(datetime.UTC))
        with tempfile.NamedTemporaryFile() as file:  # ssl reads files alone; this one is the owner's, and goes at once
            file.write(pair)
            file.flush()
            self._context.load_cert_chain(file.name)
        self._since = now

    def close(self) -> None:
        """Answer no more."""
        self._listener.close()
