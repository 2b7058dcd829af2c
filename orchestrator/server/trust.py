"""Whether a stack's images may be run: asked of the nodes that have them, before anything is done."""

from __future__ import annotations

from collections.abc import Iterable, Set

import msgspec

from agent.contract.trust import ImageTrust, RegistryImage, Verdict, VerdictRequest, WantedImage
from orchestrator.errors import RefusedError
from orchestrator.server.cluster import Cluster
from orchestrator.server.images import Images
from orchestrator.stackfile.model import Service, Stack


class TrustCheck:
    """Verdicts on the images of stacks."""

    def __init__(self, cluster: Cluster, images: Images) -> None:
        self._cluster = cluster
        self._images = images

    async def trusted(self, stack: Stack, only: Set[str] | None) -> dict[str, ImageTrust]:
        """Service → what its images are held to on their nodes, for those where that is anything. Raises RefusedError with
        every image that may not be run and every reason, for the services *only*, None for all."""
        verdicts = await self._verdicts(stack, stack.services)
        refused = [
            f"{s.where}: service {s.name}: image {v.name} is refused: {'; '.join(v.problems)}"
            for s in stack.services
            if only is None or s.name in only
            for v in verdicts.get(s.name, ())
            if v.problems
        ]
        if refused:
            raise RefusedError("\n".join(refused), 403)
        held = _demands(stack)
        if not held.demands:
            return {}
        return {
            name: msgspec.structs.replace(held, proofs=tuple((v.digest, p) for v in found for p in v.proofs))
            for name, found in verdicts.items()
        }

    async def problems(self, stack: Stack, service: Service) -> list[str]:
        """Why the images of *service* may not be run, each reason with the image's name."""
        found = (await self._verdicts(stack, [service])).get(service.name, [])
        return [f"image {v.name}: {problem}" for v in found for problem in v.problems]

    async def _verdicts(self, stack: Stack, services: Iterable[Service]) -> dict[str, list[Verdict]]:
        """Service → verdicts on its images, by the node that has them; this host's where none has. None where nothing is
        refused at all."""
        trust = _demands(stack)
        wanted = {(name, s.container.user) for s in services for name in s.container.images}
        places = await self._images.places(sorted({name for name, _ in wanted}))
        found: dict[tuple[str, str], Verdict] = {}
        for node in sorted({places.get(name, self._cluster.local) for name, _ in wanted}):
            asked = sorted(w for w in wanted if places.get(w[0], self._cluster.local) == node)
            body = VerdictRequest(images=tuple(WantedImage(name=n, user=u) for n, u in asked), trust=trust)
            client = self._cluster.get(node).client
            reply = await client.call("POST", "/pystack/images/verdicts", data=msgspec.json.encode(body))
            found |= zip(asked, msgspec.convert(reply, list[Verdict]), strict=False)
        keys = {s.name: [(name, s.container.user) for name in s.container.images] for s in services}
        return {name: [found[k] for k in of if k in found] for name, of in keys.items()}

    async def moved(self, stack: Stack) -> list[str]:
        """A sentence for each image of the lock whose tag leads elsewhere at its registry by now."""
        if not stack.lock:
            return []
        used = {name for s in stack.services for name in s.container.images}
        now = {one.name: one for one in await self.at_registry(sorted(e.image for e in stack.lock if e.image in used))}
        warnings = []
        for entry in stack.lock:
            there = dict(now[entry.image].platforms) if entry.image in now else {}
            for platform, digest in entry.digests:
                if (found := there.get(platform)) and found != digest:
                    warnings.append(
                        f"image {entry.image}: the tag moved: {found} at its registry, {digest} in stack.lock ({platform})"
                    )
        return warnings

    async def at_registry(self, names: list[str]) -> list[RegistryImage]:
        """What the registries of *names* have under each, asked by this host's node. Raises PystackError."""
        client = self._cluster.members[self._cluster.local].client
        reply = await client.call("POST", "/pystack/images/registry", data=msgspec.json.encode(names))
        return msgspec.convert(reply, list[RegistryImage])


def _demands(stack: Stack) -> ImageTrust:
    enforced = stack.lock_enforced or stack.policy.locked
    return ImageTrust(policy=stack.policy, locked=(stack.lock or ()) if enforced else None)
