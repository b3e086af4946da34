"""Missing shares of a blob from any k of them, without opening it: the verify right is enough.

A rebuilt share is held against the blob's name like any other before it leaves this machine, so a blob whose
maker coded it wrongly is found out and not spread.
"""

from __future__ import annotations

from collections.abc import Sequence

from muniment.core.sealing import (
    BlobBuffers,
    CodedShares,
    OpenBuffers,
    check_computed,
    check_copies,
    coding_of,
)
from muniment.erasure.codec import codec_for
from muniment.merkle.share_tree import leaf_hashes
from muniment.spec.blob import BlobName
from muniment.spec.share import CodecId, decode_header


def rebuild(
    name: BlobName, numbers: Sequence[int], given: OpenBuffers, wanted: Sequence[int], target: BlobBuffers
) -> CodedShares:
    """Compute the wanted shares.

    Args:
        name: the blob.
        numbers: the k shares in `given` that were checked.
        wanted: other share numbers.
        target: where they are put.
    Raises: BlobInconsistent: a rebuilt share is not the one that the blob's name commits to.
    Cost: O(k * len(wanted) * share), and one pass of BLAKE3 over what was rebuilt; only wanted shares are
        computed.
    """
    shape = name.shape
    roots = decode_header(given.head(numbers[0])).roots
    _, room = target.shares(shape)
    shares = {number: room[number] for number in wanted}
    sources = given.checked(numbers)
    if shape.codec is CodecId.REP:  # all copies share one piece of memory
        shares[wanted[0]][:] = sources[0]
    else:
        codec_for(coding_of(shape)).decode(sources, numbers, list(shares.items()))
    leaves = {number: leaf_hashes(share) for number, share in shares.items()}
    for number in wanted:
        check_computed(name, roots, number, leaves[number])
    return CodedShares(name, roots, leaves, shares)


def check_fit(name: BlobName, numbers: Sequence[int], given: OpenBuffers) -> None:
    """Whether all n shares that the name commits to are of one content, whichever k of them are at hand.

    Args:
        name: the blob.
        numbers: the k shares in `given` that were checked.
    Raises: BlobInconsistent: each share verifies, and yet other k give something else.
    Cost: O(k * (n - k) * share), BLAKE3 over n - k shares, and memory for one.
    """
    shape = name.shape
    roots = decode_header(given.head(numbers[0])).roots
    if shape.codec is CodecId.REP:
        check_copies(name, roots)
        return
    sources, room = given.checked(numbers), memoryview(bytearray(shape.share_bytes))
    for number in set(range(shape.n)) - set(numbers):
        codec_for(coding_of(shape)).decode(sources, numbers, [(number, room)])
        check_computed(name, roots, number, leaf_hashes(room))
