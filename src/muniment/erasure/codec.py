"""Codecs: Reed-Solomon and replication behind one interface (rows T13 to T18; docs/spec/erasure.md)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from muniment.erasure.field import check_numbers, rows
from muniment.erasure.kernel import Buffer, Kernel, best_kernel
from muniment.errors import InvalidCoding
from muniment.spec.limits import SHARES_MAX
from muniment.spec.share import CodecId

_TEXT = re.compile(r"(?:rs-)?(\d{1,3})[-/](\d{1,3})|rep-(\d{1,3})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Coding:
    """Which codec, and how many shares restore (k) and exist (n).

    Raises: InvalidCoding: not 1 <= k <= n <= 256, or replication with k other than 1.
    """

    codec: CodecId
    k: int
    n: int

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.n <= SHARES_MAX:
            raise InvalidCoding(reason=f"{self.k} of {self.n} shares")
        if self.codec is CodecId.REP and self.k != 1:
            raise InvalidCoding(reason="replication needs one share, not several")

    @property
    def text(self) -> str:
        """`rs-4-6` or `rep-3`: short, URL-safe, read back by `from_text`."""
        return f"rep-{self.n}" if self.codec is CodecId.REP else f"rs-{self.k}-{self.n}"

    @classmethod
    def from_text(cls, text: str) -> Coding:
        """Read `rs-4-6`, its short form `4/6`, or `rep-3`.  Raises: InvalidCoding."""
        found = _TEXT.fullmatch(text)
        if not found:
            raise InvalidCoding(reason=f"{text!r} is neither K/N nor rep-N")
        k, n, copies = found.groups()
        return cls(CodecId.REP, 1, int(copies)) if copies else cls(CodecId.RS, int(k), int(n))


class Codec(Protocol):
    """Turns k equal parts into shares and back, on buffers the caller owns; safe for several threads."""

    def encode(self, data: Sequence[Buffer], wanted: Sequence[tuple[int, Buffer]]) -> None:
        """Compute the wanted shares only.

        Args:
            data: the k parts, equally long; they are shares 0 to k - 1.
            wanted: (share number, buffer to fill) for each wanted share; numbers below k are copies.
        Raises: InvalidCoding: wrong count, lengths or numbers.
        Cost: O(k * len(wanted) * length).
        """
        ...

    def decode(
        self, shares: Sequence[Buffer], numbers: Sequence[int], missing: Sequence[tuple[int, Buffer]]
    ) -> None:
        """Compute missing shares, data or parity, from any k.

        Args:
            shares: exactly k, equally long.
            numbers: their share numbers.
            missing: (share number, buffer to fill); no buffer overlaps a share.
        Raises: InvalidCoding: wrong count, lengths or numbers.
        """
        ...


class ReedSolomon:
    """k of n over GF(2^8), systematic.

    Args:
        coding: its k and n.
        kernel: who computes.
    """

    def __init__(self, coding: Coding, kernel: Kernel) -> None:
        self._k, self._n, self._kernel = coding.k, coding.n, kernel
        self._data_numbers = tuple(range(coding.k))

    def encode(self, data: Sequence[Buffer], wanted: Sequence[tuple[int, Buffer]]) -> None:
        self.decode(data, self._data_numbers, wanted)

    def decode(
        self, shares: Sequence[Buffer], numbers: Sequence[int], missing: Sequence[tuple[int, Buffer]]
    ) -> None:
        wanted = tuple(number for number, _ in missing)
        targets = [target for _, target in missing]
        _check(shares, numbers, wanted, targets, self._k, self._n)
        if targets:
            self._kernel.combine(rows(tuple(numbers), wanted), shares, targets)


class Replication:
    """k = 1: every share is the data itself.

    Args:
        coding: its n.
    """

    def __init__(self, coding: Coding) -> None:
        self._n = coding.n

    def encode(self, data: Sequence[Buffer], wanted: Sequence[tuple[int, Buffer]]) -> None:
        self.decode(data, (0,), wanted)

    def decode(
        self, shares: Sequence[Buffer], numbers: Sequence[int], missing: Sequence[tuple[int, Buffer]]
    ) -> None:
        _check(shares, numbers, [number for number, _ in missing], [t for _, t in missing], 1, self._n)
        for _, target in missing:
            memoryview(target)[:] = shares[0]


def _check(
    shares: Sequence[Buffer],
    numbers: Sequence[int],
    wanted: Sequence[int],
    targets: Sequence[Buffer],
    k: int,
    n: int,
) -> None:
    """Lengths and numbers decide what memory the kernel touches: nothing may slip through."""
    if len(shares) != k or len(numbers) != k:
        raise InvalidCoding(reason=f"{len(shares)} shares given, exactly {k} are needed")
    if not check_numbers(numbers, n) or not check_numbers(wanted, n):
        raise InvalidCoding(reason=f"share numbers must be distinct and below {n}")
    size = len(shares[0])
    if size == 0 or any(len(buffer) != size for buffer in (*shares, *targets)):
        raise InvalidCoding(reason="shares must be equally long and not empty")


def codec_for(coding: Coding, kernel: Kernel | None = None) -> Codec:
    """The codec for a coding, on the fastest kernel present unless one is given."""
    return _fastest(coding) if kernel is None else _codec(coding, kernel)


@lru_cache(maxsize=64)
def _fastest(coding: Coding) -> Codec:
    return _codec(coding, best_kernel())


def _codec(coding: Coding, kernel: Kernel) -> Codec:
    return Replication(coding) if coding.codec is CodecId.REP else ReedSolomon(coding, kernel)
