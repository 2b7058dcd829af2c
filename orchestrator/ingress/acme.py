"""Certificates by ACME: one order, from the account to the chain. The library blocks, so this runs in a thread of its own.

Source: RFC 8555 (ACME), chapters 7.3.4 (EAB), 7.4 (orders), 8.3 (HTTP-01), 8.4 (DNS-01); RFC 8737 (TLS-ALPN-01).
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.contract.wire import WireStruct
from orchestrator.errors import PystackError
from orchestrator.ingress.model import Challenge, IngressSettings

if TYPE_CHECKING:
    from acme import messages
    from acme.client import ClientNetwork, ClientV2

HOOK_S = 120.0
NONCES = 4


class AcmeError(PystackError):
    """The ACME server, or what it looked at, did not do; *rate_limited* where it asks to be left alone for long, *no_account*
    where it does not know the account."""

    def __init__(self, message: str, *, rate_limited: bool = False, no_account: bool = False) -> None:
        super().__init__(message)
        self.rate_limited, self.no_account = rate_limited, no_account


class Account(WireStruct, frozen=True, kw_only=True):
    """An account of the cluster at the ACME server *directory*: its private *key* (JWK) and its address *uri*."""

    directory: str
    key: str
    uri: str


class Publisher(NamedTuple):
    """*show* makes every proxy answer a challenge, and returns once they do; *hide* ends that."""

    show: Callable[[Challenge], None]
    hide: Callable[[Challenge], None]


def register(settings: IngressSettings, eab_key: str) -> Account:
    """A new account at the server of *settings*; *eab_key* is the secret of an external account, "" for none.

    Raises AcmeError."""
    from acme import messages
    from cryptography.hazmat.primitives.asymmetric import rsa
    from josepy.jwk import JWKRSA

    key = JWKRSA(key=rsa.generate_private_key(65537, 2048))
    with _client(settings, key, None) as client:
        binding = None
        if settings.eab_key_id:
            binding = messages.ExternalAccountBinding.from_data(
                key.public_key(), settings.eab_key_id, eab_key, client.directory
            )
        asked = messages.NewRegistration.from_data(
            email=settings.email or None, terms_of_service_agreed=True, external_account_binding=binding
        )
        made = client.new_account(asked)
        return Account(directory=settings.directory, key=key.json_dumps(), uri=made.uri)


def obtain(settings: IngressSettings, account: Account, host: str, publisher: Publisher) -> bytes:
    """The chain for *host* and its key, as PEM. Raises AcmeError."""
    from acme import messages
    from acme.crypto_util import make_csr
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from josepy.jwk import JWKRSA

    if host.startswith("*.") and not settings.dns_hook:
        raise AcmeError(f"{host}: a wildcard is certified by DNS-01 alone: `pystack ingress up --dns-hook PROGRAM`")
    private = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key = JWKRSA.json_loads(account.key)
    registration = messages.RegistrationResource(uri=account.uri, body=messages.Registration())
    with _client(settings, key, registration) as client:
        order = client.new_order(make_csr(private, [host]))
        with contextlib.ExitStack() as shown:
            for authorization in order.authorizations:
                if authorization.body.status != messages.STATUS_VALID:
                    shown.enter_context(_answered(client, key, authorization, settings, publisher))
            done = client.poll_and_finalize(order)
    return bytes(done.fullchain_pem.encode() + private)


def _network(key: Any, registration: Any, trusted: Any) -> ClientNetwork:
    """The library's, which sends a request whose nonce is refused once more; here it does so up to NONCES times, as a server
    may refuse any. Source: RFC 8555, 6.5."""
    from acme import messages
    from acme.client import ClientNetwork

    class Patient(ClientNetwork):
        def post(self, *args: Any, **kwargs: Any) -> Any:
            for _ in range(NONCES - 1):
                try:
                    return super().post(*args, **kwargs)
                except messages.Error as error:
                    if error.code != "badNonce":
                        raise
            return super().post(*args, **kwargs)

    return Patient(key, account=registration, verify_ssl=trusted)


@contextlib.contextmanager
def _client(settings: IngressSettings, key: Any, registration: Any) -> Iterator[ClientV2]:
    """A client of the server. What goes wrong with it is an AcmeError in one sentence."""
    import requests
    from acme import errors, messages
    from acme.client import ClientV2

    with tempfile.NamedTemporaryFile("w", suffix=".pem") as roots:
        roots.write(settings.trusted)
        roots.flush()
        try:
            trusted: Any = roots.name if settings.trusted else True  # requests takes a file too
            network = _network(key, registration, trusted)
            yield ClientV2(ClientV2.get_directory(settings.directory, network), network)
        except messages.Error as error:
            limited = error.typ.endswith(":rateLimited")
            unknown = error.typ.endswith(":accountDoesNotExist")
            reason = f"{settings.directory}: {error.detail or error.typ}"
            raise AcmeError(reason, rate_limited=limited, no_account=unknown) from None
        except errors.ValidationError as error:
            raise AcmeError(f"{settings.directory}: {_refusals(error)}") from None
        except errors.TimeoutError:
            raise AcmeError(f"{settings.directory}: the order took too long") from None
        except (errors.Error, requests.RequestException, OSError) as error:
            raise AcmeError(f"{settings.directory}: {str(error)[:300]}") from None


def _refusals(error: Any) -> str:
    """What the server found at the hosts that it looked at."""
    found = [f"{a.body.identifier.value}: {c.error.detail}" for a in error.failed_authzrs for c in a.body.challenges if c.error]
    return "; ".join(found) or "the challenge failed"


@contextlib.contextmanager
def _answered(
    client: ClientV2, key: Any, authorization: messages.AuthorizationResource, settings: IngressSettings, publisher: Publisher
) -> Iterator[None]:
    """Meanwhile a challenge of *authorization* is answered: DNS-01 where there is a hook for it, or that of *settings*."""
    from acme import challenges
    from josepy.json_util import decode_b64jose

    wanted = "dns-01" if settings.dns_hook else settings.challenge
    # the library knows no TLS-ALPN-01 any more, of which it need not know more than of HTTP-01
    offered = next((c for c in authorization.body.challenges if c.chall.to_json().get("type") == wanted), None)
    name = authorization.body.identifier.value
    if offered is None:
        raise AcmeError(f"{settings.directory} offers no {wanted} for {name}")
    if isinstance(offered.chall, challenges.DNS01):
        response, validation = offered.response_and_validation(key)
        record = offered.chall.validation_domain_name(name)
        _hook(settings.dns_hook, "present", record, validation)
        try:
            client.answer_challenge(offered, response)
            yield
        finally:
            _hook(settings.dns_hook, "cleanup", record, validation)
        return
    token = str(offered.chall.to_json()["token"])
    response, answer = challenges.HTTP01(token=decode_b64jose(token)).response_and_validation(key)
    shown = Challenge(settings.challenge, name, token, answer)
    publisher.show(shown)
    try:
        client.answer_challenge(offered, response)
        yield
    finally:
        publisher.hide(shown)


def _hook(program: str, verb: str, record: str, value: str) -> None:
    """Have *program* make or remove the TXT record *record* with *value*. Raises AcmeError."""
    try:
        done = subprocess.run([program, verb, record, value], capture_output=True, text=True, timeout=HOOK_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AcmeError(f"{program} {verb} {record}: {error}") from None
    if done.returncode:
        raise AcmeError(f"{program} {verb} {record} ended with {done.returncode}: {done.stderr.strip()[-200:]}")
