"""The ways by which a notice goes out: a signed POST, a mail, a program.

Source: RFC 2104 (HMAC); RFC 5321, 3207, 8314 (SMTP, STARTTLS, TLS); RFC 5322 (messages).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import signal
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import aiohttp
import msgspec

from agent.contract.notify import Command, Kind, Mail, NotifySettings, Webhook
from agent.contract.printable import escaped
from orchestrator.errors import PystackError
from orchestrator.notify.model import Notice

if TYPE_CHECKING:
    from email.message import EmailMessage

WITHIN_S = 30.0
"""How long a receiver may take."""
SUBJECT = 200
"""Characters."""


class Channel(Protocol):
    """A way out. *name* is what `pystack notify ls` calls it, *events* are what it takes, all if there are none."""

    name: str
    events: tuple[Kind, ...]

    async def send(self, notice: Notice) -> None:
        """Raises PystackError, OSError, TimeoutError, aiohttp.ClientError or smtplib.SMTPException."""
        ...


def channels(settings: NotifySettings) -> Sequence[Channel]:
    """All that *settings* names."""
    return [
        *(WebhookChannel(one) for one in settings.webhooks),
        *(MailChannel(one) for one in settings.mail),
        *(CommandChannel(one) for one in settings.commands),
    ]


def _secret(path: str) -> bytes:
    try:
        return Path(path).read_bytes().strip()
    except OSError as error:
        raise PystackError(f"{path} cannot be read: {error.strerror}") from None


def signature(secret: bytes, time: str, body: bytes) -> str:
    """Of a POST at *time*: the HMAC of "TIME.BODY", so that an old one cannot be sent again as a new one."""
    return "sha256=" + hmac.new(secret, f"{time}.".encode() + body, hashlib.sha256).hexdigest()


class WebhookChannel:
    """A POST of the notice as JSON; 2xx is an answer that takes it. Redirects are not followed."""

    def __init__(self, settings: Webhook) -> None:
        self._settings = settings
        self.name = f"webhook {settings.url.partition('?')[0]}"
        self.events = settings.events

    async def send(self, notice: Notice) -> None:
        """See `Channel.send`."""
        body, time = msgspec.json.encode(notice), f"{notice.time:.0f}"
        headers = {"Content-Type": "application/json", "X-Pystack-Notice": notice.id, "X-Pystack-Time": time}
        if self._settings.secret_file:
            headers["X-Pystack-Signature"] = signature(_secret(self._settings.secret_file), time, body)
        timeout = aiohttp.ClientTimeout(total=WITHIN_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(self._settings.url, data=body, headers=headers, allow_redirects=False) as reply,
        ):
            if not 200 <= reply.status < 300:
                raise PystackError(f"it answers {reply.status} {reply.reason}")


class MailChannel:
    """A plain mail."""

    def __init__(self, settings: Mail) -> None:
        self._settings = settings
        self.name = f"mail {', '.join(settings.recipients)} by {settings.host}"
        self.events = settings.events

    async def send(self, notice: Notice) -> None:
        """See `Channel.send`."""
        await asyncio.to_thread(self._send, _message(self._settings, notice))

    def _send(self, message: EmailMessage) -> None:
        import smtplib

        one, context = self._settings, ssl.create_default_context()
        plain = one.security != "tls"
        made = smtplib.SMTP(one.host, one.port, timeout=WITHIN_S) if plain else None
        with made or smtplib.SMTP_SSL(one.host, one.port, timeout=WITHIN_S, context=context) as server:
            if one.security == "starttls":
                server.starttls(context=context)
            if one.user:
                server.login(one.user, _secret(one.password_file).decode())
            server.send_message(message)


def _message(settings: Mail, notice: Notice) -> EmailMessage:
    """Names of stacks and nodes are strangers': no line of a head begins in them."""
    from email.message import EmailMessage
    from email.utils import formatdate

    message = EmailMessage()
    message["From"] = settings.sender
    message["To"] = ", ".join(settings.recipients)
    message["Subject"] = escaped(f"pystack: {notice.kind.replace('_', ' ')}: {notice.subject}")[:SUBJECT]
    message["Date"] = formatdate(notice.time)
    message["Message-ID"] = f"<{notice.id}@pystack.invalid>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(f"{escaped(notice.text, chr(10))}\n")
    return message


class CommandChannel:
    """A program; exit status 0 takes the notice."""

    def __init__(self, settings: Command) -> None:
        self._settings = settings
        self.name = f"command {settings.words[0]}"
        self.events = settings.events

    async def send(self, notice: Notice) -> None:
        """See `Channel.send`."""
        variables = {
            "PYSTACK_NOTICE_KIND": notice.kind,
            "PYSTACK_NOTICE_SUBJECT": notice.subject,
            "PYSTACK_NOTICE_TEXT": notice.text,
            "PYSTACK_NOTICE_ID": notice.id,
        }
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}
        environment |= {name: value.replace("\0", "") for name, value in variables.items()}
        child = await asyncio.create_subprocess_exec(
            *self._settings.words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
            cwd="/",
        )
        try:
            async with asyncio.timeout(WITHIN_S):
                _, output = await child.communicate(msgspec.json.encode(notice))
        except (TimeoutError, asyncio.CancelledError):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
            raise
        if child.returncode:
            last = (output.decode(errors="replace").strip().splitlines() or [""])[-1]
            raise PystackError(f"it ended with {child.returncode} {last[:200]}".rstrip())
