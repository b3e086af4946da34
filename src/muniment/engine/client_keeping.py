"""What checks and keepers ask of a grid client: who holds what, repairs, and blobs that stay sealed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence, Set

from muniment.core.capabilities import weaken
from muniment.core.sealing import code_sealed
from muniment.engine.check import Check, Depth
from muniment.engine.client import Client
from muniment.engine.covered import covered_blobs
from muniment.engine.health import BlobHealth, Health, ShareState
from muniment.engine.keeping.repair import Repairer, RepairResult
from muniment.engine.keeping.throttle import Throttle
from muniment.engine.policy import Policy
from muniment.engine.results import DownloadTally, UploadTally
from muniment.ids import NodeId
from muniment.ports import BlobCondition
from muniment.spec.blob import BlobName
from muniment.spec.cap import Cap, LiteralFileVerify
from muniment.spec.share import BlobShape


class KeepingClient(Client):
    """See the module; arguments as `Client`."""

    # --- looking

    async def check(self, cap: Cap, *, verify: bool = False) -> Health:
        """Find out which nodes hold which shares of a file or tree.

        Args:
            cap: any capability; the verify right is enough, and all that is used.
            verify: read every share and hold it against the BlobId instead of believing the nodes.
        Returns: the state of every share at every node; damage and absence are findings, not errors.
        Raises: RosterEmpty; MalformedRecord: manifests are nested without end.
        """
        weak = weaken(cap)
        if not isinstance(weak, LiteralFileVerify):
            self._nodes.require_nodes()
        check = self.checker(Depth.READ if verify else Depth.ASKED)
        return await check.run(weak)

    async def repair(
        self,
        cap: Cap,
        *,
        seed: bytes,
        verify: bool = False,
        below: int | None = None,
        move: bool = False,
        bytes_per_s: float = math.inf,
    ) -> RepairResult:
        """Rebuild what is missing of a file or tree, and bring it to nodes that have none of it.

        Args:
            cap: any capability; the verify right is enough, and all that is used.
            seed: 32 unpredictable bytes: which leaf of each share its node is to prove.
            verify: read every share instead of having one leaf of it proven.
            below: rebuild when fewer distinct shares of a blob are live; None: as soon as one is missing.
            move: also bring shares to where placement wants them, and give up further copies.
            bytes_per_s: read and sent together at most.
        Returns: what was found and done; blobs that cannot be repaired are in it, and stop no other.

        Can be broken off and run again at any time: what has landed is found held.
        Raises: RosterEmpty; MalformedRecord: manifests are nested without end.
        """
        weak = weaken(cap)
        if not isinstance(weak, LiteralFileVerify):
            self._nodes.require_nodes()
        check = self.checker(Depth.READ if verify else Depth.PROVEN, seed)
        repairer = self.repairer(Throttle(bytes_per_s), below=below, move=move)
        covered = covered_blobs(self._fetcher, weak, repairer.result.unread)
        return await repairer.run((name async for name, _ in covered), check)

    async def check_blobs(self, names: Sequence[BlobName], *, verify: bool = False) -> list[BlobCondition]:
        """The port `BlobChecker`: find out what the nodes have of each blob, in order.

        A share that nobody shows counts as missing only if every node of the roster answers.
        """
        self._nodes.require_nodes()
        check = self.checker(Depth.READ if verify else Depth.ASKED, fit=verify)
        found = await check.blobs(names)
        return [_condition(health, everybody=not check.offline) for health in found]

    # --- for keepers

    def checker(
        self, depth: Depth, seed: bytes = b"", *, fit: bool = False, silent: Set[NodeId] = frozenset()
    ) -> Check:
        """What looks for blobs; one for each round, since it remembers who did not answer.

        Args:
            seed: of the challenges, for PROVEN.
            fit: whether a blob's shares are of one content is looked at too.
            silent: nodes that are not asked, and count as offline.
        """
        placement = self._policy.placement
        return Check(
            self._nodes, self._fetcher, self._kernels, placement, depth, seed=seed, fit=fit, silent=silent
        )

    def repairer(self, throttle: Throttle, *, below: int | None = None, move: bool = False) -> Repairer:
        """What carries out plans; see `repair`."""
        return Repairer(
            self._nodes, self._fetcher, self._sender, self._kernels, throttle, repair_below=below, move=move
        )

    async def store_sealed(self, sealed: bytes, policy: Policy) -> BlobName:
        """Store bytes that are encrypted already, as a blob that describes itself.

        Args:
            sealed: 1 to SEALED_BYTES_MAX bytes.
        Returns: its name; durable on `policy.happy` nodes.
        Raises: NotHappy, InvalidCoding; RosterEmpty.
        """
        self._nodes.require_nodes()
        coding = policy.coding
        buffers = await self._sender.buffers_for(BlobShape(coding.codec, coding.k, coding.n, len(sealed)))
        try:
            coded, _ = await self._kernels.run(code_sealed, sealed, coding, buffers.blob)
        except BaseException:
            self._sender.give_back(buffers)
            raise
        await self._sender.send(coded, buffers, policy, UploadTally())
        return coded.name

    async def fetch_sealed(self, name: BlobName, tally: DownloadTally) -> bytes:
        """The bytes of such a blob, of which k shares were checked.

        Raises: TooFewShares, BlobInconsistent; RosterEmpty.
        """
        return await self._fetcher.sealed(name, tally)


def _condition(health: BlobHealth, *, everybody: bool) -> BlobCondition:
    states = Counter(share.state for share in health.shares)
    damaged = sum(state is ShareState.DAMAGED for share in health.shares for _, state in share.nodes)
    missing, offline = states[ShareState.MISSING], states[ShareState.OFFLINE]
    if not everybody:
        missing, offline = 0, missing + offline
    return BlobCondition(health.name, health.live, damaged, missing, offline, health.consistent)
