"""Keys, tokens and passwords in text that is about to leave this host. Only what is recognised for certain counts.

Source: the formats that the issuers document (AWS IAM identifiers, GitHub and GitLab token formats, RFC 7468, RFC 7519).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

KINDS = {
    "AWS Client ID": r"(?<![A-Z0-9])(?:A3T[A-Z0-9]|AKIA|AGPA|AIDA|AROA|AIPA|ANPA|ANVA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])",
    "AWS Secret Key": r"(?i)aws.{0,20}?['\"= ][0-9a-zA-Z/+-]{40}(?![0-9a-zA-Z/+])",
    "GitHub authentication": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})\b",
    "GitLab token": r"\bgl(?:pat|dt|rt|ptt|cbt)-[A-Za-z0-9_-]{20,}",
    "Slack token": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    "Google API key": r"\bAIza[A-Za-z0-9_-]{35}",
    "Stripe key": r"\b[rs]k_live_[A-Za-z0-9]{20,}",
    "npm token": r"\bnpm_[A-Za-z0-9]{36}\b",
    "JSON Web Token": r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
    "Private Key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----",
    "Password in a URL": r"\b[a-z][a-z0-9+.-]*://[^\s/:@$]+:[^\s/@$]{3,}@",
}
_PATTERNS = {kind: re.compile(pattern) for kind, pattern in KINDS.items()}


def found(text: str) -> Iterator[str]:
    """The kinds of secret that *text* holds, each once."""
    return (kind for kind, pattern in _PATTERNS.items() if pattern.search(text))
