"""Kernel on NumPy tables, for machines without ISA-L: one look-up and one xor for each coefficient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from muniment.erasure.field import multiply
from muniment.erasure.kernel import Buffer


class NumpyKernel:
    """Combines buffers through a 64 KiB multiplication table; some hundred MB/s."""

    name = "NumPy"

    def __init__(self) -> None:
        self._products = np.array([[multiply(a, b) for b in range(256)] for a in range(256)], dtype=np.uint8)

    def combine(self, coefficients: bytes, sources: Sequence[Buffer], targets: Sequence[Buffer]) -> None:
        """Fill each target with its row's combination of the sources; see `kernel.Kernel`."""
        arrays = [np.frombuffer(source, dtype=np.uint8) for source in sources]
        for row, target in enumerate(targets):
            total = np.frombuffer(target, dtype=np.uint8)
            total[:] = 0
            for column, array in enumerate(arrays):
                coefficient = coefficients[row * len(arrays) + column]
                if coefficient:
                    total ^= self._products[coefficient][array]
