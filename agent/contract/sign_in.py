"""By which OpenID provider people sign in at the page: a part of config.yml."""

from __future__ import annotations

import re

import msgspec


class OidcSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The provider *issuer* says who somebody is; what they may, `pystack user create --no-password` does: the user is named by
    *claim*. *address* is that of the page as the provider knows it, https://server:8443; *name* is on the button."""

    issuer: str = ""
    client_id: str = ""
    client_secret_file: str = ""
    address: str = ""
    claim: str = "email"
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    name: str = "single sign-on"

    def __post_init__(self) -> None:
        for name in ("issuer", "address"):
            url = getattr(self, name)
            # in the clear on this host alone: for a provider that is tried
            if self.issuer and not re.match(r"https://[^/]|http://(127\.0\.0\.1|localhost)(:|/|$)", url):
                raise ValueError(f"oidc.{name} {url!r}: an https:// address")
        if self.issuer and not self.client_id:
            raise ValueError("oidc.client_id: the provider's name for this cluster is missing")
