"""Kernel on Intel's ISA-L (BSD licence): `ec_encode_data` called on the caller's own buffers.

The shared library comes with the pyeclib wheel or with the system (Debian: libisal2).  pyeclib itself is not
imported: its own interface copies and is 5 to 30 times slower (docs/adr/0001-erasure-kernels.md).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from muniment.erasure.kernel import Buffer

_TABLE_BYTES = 32  # ISA-L expands each coefficient to two 16-byte tables


class _PyBuffer(ctypes.Structure):
    """CPython's Py_buffer: the only way to a read-only buffer's address without a copy."""

    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int)
_get_buffer.restype = ctypes.c_int
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.POINTER(_PyBuffer),)
_release_buffer.restype = None


class IsalKernel:
    """Combines buffers at memory speed; releases the GIL while it works.

    Args:
        library: path or name of libisal.
    """

    def __init__(self, library: str) -> None:
        self.library = library
        lib = ctypes.CDLL(library)
        self._encode = lib.ec_encode_data
        self._encode.restype = None
        self._init_tables = lib.ec_init_tables
        self._init_tables.restype = None
        self.name = f"ISA-L ({library if '/' not in library else 'pyeclib wheel: ' + Path(library).name})"
        self._tables = lru_cache(maxsize=256)(self._make_tables)

    def _make_tables(self, coefficients: bytes, known: int, wanted: int) -> ctypes.Array[ctypes.c_char]:
        tables = ctypes.create_string_buffer(_TABLE_BYTES * known * wanted)
        self._init_tables(known, wanted, coefficients, tables)
        return tables

    def combine(self, coefficients: bytes, sources: Sequence[Buffer], targets: Sequence[Buffer]) -> None:
        """Fill each target with its row's combination of the sources; see `kernel.Kernel`."""
        known, wanted = len(sources), len(targets)
        tables = self._tables(coefficients, known, wanted)
        held = (_PyBuffer * (known + wanted))()
        addresses = (ctypes.c_void_p * (known + wanted))()
        taken = 0
        try:
            for at, buffer in enumerate((*sources, *targets)):
                writable = int(at >= known)  # PyBUF_SIMPLE or PyBUF_WRITABLE
                _get_buffer(buffer, ctypes.byref(held[at]), writable)
                taken += 1
                addresses[at] = held[at].buf
            size = held[0].len
            outputs = ctypes.cast(
                ctypes.byref(addresses, known * ctypes.sizeof(ctypes.c_void_p)),
                ctypes.POINTER(ctypes.c_void_p),
            )
            self._encode(ctypes.c_int(size), known, wanted, tables, addresses, outputs)
        finally:
            for at in range(taken):
                _release_buffer(ctypes.byref(held[at]))


def find_library() -> str | None:
    """Where ISA-L is: in the pyeclib wheel, else on the system, else None."""
    spec = importlib.util.find_spec("pyeclib")
    if spec is not None and spec.origin is not None:
        bundled = sorted((Path(spec.origin).parent.parent / "pyeclib.libs").glob("libisal*"))
        if bundled:
            return str(bundled[0])
    return ctypes.util.find_library("isal")
