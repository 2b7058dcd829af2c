"""Credentials for registries, from the config.json that Docker's command keeps.

It loads no HTTP client: the command line reads its user's credentials with it. Source: Docker CLI documentation (config.json,
credential helpers).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import os
import re
from pathlib import Path

import msgspec

from agent.errors import ImageError
from agent.images import documents

HELPER_S = 30
LARGEST = 1 << 20
"""Bytes of a config.json, and of a helper's answer."""
HUB_KEY = "https://index.docker.io/v1/"
TOKEN = "<token>"


class Credentials(msgspec.Struct, frozen=True):
    """A user name and password for a registry."""

    username: str
    password: str
    """The secret, or an identity token where *username* is TOKEN."""

    @property
    def basic(self) -> str:
        """The value of the Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class AuthEntry(msgspec.Struct, frozen=True):
    """One of `auths` in config.json."""

    auth: str = ""
    identitytoken: str = ""


class DockerConfigFile(msgspec.Struct, frozen=True, rename="camel"):
    """The keys of config.json that are used."""

    auths: dict[str, AuthEntry] = {}
    cred_helpers: dict[str, str] = {}
    creds_store: str = ""


class Helped(msgspec.Struct, frozen=True, rename="pascal"):
    """A credential helper's answer."""

    username: str
    secret: str


def host_of(name: str) -> str:
    """The registry that *name* is of: clients write it as a URL too, with the path of its API."""
    return name.removeprefix("https://").removeprefix("http://").partition("/")[0]


def load(folder: str = "") -> tuple[Path, DockerConfigFile]:
    """The config.json of *folder*, "" for the user's own, and where it is; where there is none, an empty one. Raises
    ImageError."""
    path = Path(folder or os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "config.json"
    try:
        return path, documents.read(path.read_bytes(), DockerConfigFile, str(path), LARGEST)
    except FileNotFoundError:
        return path, DockerConfigFile()
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}: registry credentials cannot be read") from error


async def find(host: str, folder: str = "") -> Credentials | None:
    """Credentials for registry *host*: a helper for it, the default helper, then those in *folder*'s config.json. Raises
    ImageError."""
    path, config = load(folder)
    key = HUB_KEY if host == "docker.io" else host
    helper = config.cred_helpers.get(host) or config.creds_store
    if helper:
        found = await _ask_helper(helper, key)
        if found:
            return found
    for name in (key, f"https://{host}", f"http://{host}", f"https://{host}/v2/"):
        entry = config.auths.get(name, AuthEntry())
        if entry.identitytoken:
            return Credentials(TOKEN, entry.identitytoken)
        if entry.auth:
            try:
                user, _, secret = base64.b64decode(entry.auth, validate=True).decode().partition(":")
            except (binascii.Error, ValueError) as error:
                raise ImageError(f"{path}: the entry for {name} is not base64 of user:password") from error
            return Credentials(user, secret.rstrip("\0"))
    return None


async def _ask_helper(helper: str, key: str) -> Credentials | None:
    if not re.fullmatch(r"[\w.-]+", helper):
        raise ImageError(f"credential helper {helper!r}: not a program name")
    program = f"docker-credential-{helper}"
    try:
        child = await asyncio.create_subprocess_exec(
            program,
            "get",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        raise ImageError(f"{program} is named in config.json but is not installed") from None
    try:
        async with asyncio.timeout(HELPER_S):
            out, _ = await child.communicate(key.encode())
    except TimeoutError:
        raise ImageError(f"{program} did not answer within {HELPER_S} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
    if child.returncode:
        return None
    reply = documents.read(out, Helped, f"the answer of {program}", LARGEST)
    return Credentials(reply.username, reply.secret)
