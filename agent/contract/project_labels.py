"""Docker Compose's labels on images, networks and volumes, by which its tools find what is a project's."""

from __future__ import annotations

COMPOSE = "2.40.0"
"""The version of Docker Compose whose words and labels these are: scripts ask for it."""


def project_labels(kind: str, stack: str, key: str, *described: object) -> dict[str, str]:
    """Those of the network or volume (*kind*) that is *key* in the file of *stack*, *described* as that says, or of the image
    that is built for a service; none without a stack. The hash, which images have not, changes with the description, and is
    not the one that Docker Compose computes."""
    if not stack:
        return {}
    marks = {"project": stack, kind: key, "version": COMPOSE}
    if described:
        import hashlib  # which few commands need, and which loads OpenSSL

        marks["config-hash"] = hashlib.sha256(repr(described).encode()).hexdigest()
    return {f"com.docker.compose.{name}": value for name, value in marks.items()}
