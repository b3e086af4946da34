"""The one operation under every codec: linear combinations over GF(2^8), and the choice who computes it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class Kernel(Protocol):
    """Computes combinations of equally long buffers; safe to use from several threads."""

    name: str

    def combine(self, coefficients: bytes, sources: Sequence[Buffer], targets: Sequence[Buffer]) -> None:
        """Fill each target with a combination of all sources.

        Args:
            coefficients: len(targets) * len(sources) bytes, row by row.
            sources: equally long, contiguous; at least one.
            targets: writable, as long as the sources, overlapping none of them.
        """
        ...


@lru_cache(maxsize=1)
def best_kernel() -> Kernel:
    """ISA-L where it loads, else NumPy."""
    from muniment.erasure.isal import IsalKernel, find_library

    library = find_library()
    if library is not None:
        try:
            return IsalKernel(library)
        except (OSError, AttributeError):
            pass  # another architecture's file, or a library without the call
    from muniment.erasure.numpy_kernel import NumpyKernel

    return NumpyKernel()


def kernel_name() -> str:
    """What computes erasure codes in this process, for `muni version -v`."""
    return best_kernel().name
