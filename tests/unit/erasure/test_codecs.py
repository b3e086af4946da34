"""Both codecs and both kernels against zfec, the independent oracle (rows T13 to T18)."""

from __future__ import annotations

import itertools
import random

import pytest
import zfec
from hypothesis import given
from hypothesis import strategies as st

from muniment.erasure.codec import Codec, Coding, codec_for
from muniment.erasure.isal import IsalKernel, find_library
from muniment.erasure.kernel import Kernel
from muniment.erasure.numpy_kernel import NumpyKernel
from muniment.errors import InvalidCoding
from muniment.spec.share import CodecId


def _kernels() -> list[Kernel]:
    library = find_library()
    assert library is not None, "the locked dependencies carry ISA-L"
    return [IsalKernel(library), NumpyKernel()]


KERNELS = _kernels()
EDGES = [1, 31, 32, 33, 63, 64, 65, 4097]


def _parts(k: int, size: int, seed: int) -> list[bytes]:
    noise = random.Random(seed)
    return [noise.randbytes(size) for _ in range(k)]


def _encoded(codec: Codec, parts: list[bytes], wanted: list[int]) -> list[bytes]:
    targets = [bytearray(len(parts[0])) for _ in wanted]
    codec.encode(parts, list(zip(wanted, targets, strict=True)))
    return [bytes(target) for target in targets]


def _check_against_oracle(k: int, n: int, size: int, wanted: list[int], numbers: list[int]) -> None:
    parts = _parts(k, size, k * 1000 + n)
    oracle = zfec.Encoder(k, n).encode(parts)
    for kernel in KERNELS:
        codec = codec_for(Coding(CodecId.RS, k, n), kernel)
        assert _encoded(codec, parts, wanted) == [bytes(oracle[i]) for i in wanted]
        missing = [(i, bytearray(size)) for i in range(k) if i not in numbers]
        codec.decode([oracle[i] for i in numbers], numbers, missing)
        assert all(bytes(found) == parts[i] for i, found in missing)


@pytest.mark.parametrize(("k", "n"), [(k, n) for n in range(1, 13) for k in range(1, n + 1)])
def test_every_small_code_equals_the_oracle(k: int, n: int) -> None:
    size = EDGES[(k + n) % len(EDGES)]
    subsets = list(itertools.combinations(range(n), k))
    chosen = subsets if n <= 6 else random.Random(n * 13 + k).sample(subsets, min(6, len(subsets)))
    for numbers in chosen:
        _check_against_oracle(k, n, size, list(range(n)), list(numbers))


@given(st.data())
def test_sampled_large_codes_equal_the_oracle(data: st.DataObject) -> None:
    n = data.draw(st.integers(13, 256))
    k = data.draw(st.integers(1, n))
    wanted = data.draw(st.lists(st.integers(0, n - 1), unique=True, min_size=1, max_size=5))
    numbers = random.Random(data.draw(st.integers(0, 1000))).sample(range(n), k)
    _check_against_oracle(k, n, data.draw(st.sampled_from(EDGES[:4])), wanted, numbers)


@pytest.mark.parametrize("coding", [Coding(CodecId.RS, 4, 6), Coding(CodecId.REP, 1, 3)], ids=str)
@pytest.mark.parametrize("size", EDGES)
def test_any_k_shares_restore_the_data_and_every_other_share(coding: Coding, size: int) -> None:
    codec = codec_for(coding)
    parts = _parts(coding.k, size, size)
    shares = _encoded(codec, parts, list(range(coding.n)))
    for numbers in itertools.permutations(range(coding.n), coding.k):
        others = [(i, bytearray(size)) for i in range(coding.n) if i not in numbers]
        codec.decode([shares[i] for i in numbers], list(numbers), others)
        assert all(bytes(found) == shares[i] for i, found in others)


def test_replication_gives_identical_shares() -> None:
    shares = _encoded(codec_for(Coding(CodecId.REP, 1, 5)), [b"books"], list(range(5)))
    assert shares == [b"books"] * 5


def test_unaligned_and_read_only_buffers_are_used_in_place() -> None:
    area = memoryview(bytearray(random.Random(1).randbytes(4 * 1001 + 3)))
    parts = [area[1 + i * 1001 : 1 + (i + 1) * 1001] for i in range(4)]
    read_only = [bytes(part) for part in parts]
    for kernel in KERNELS:
        codec = codec_for(Coding(CodecId.RS, 4, 6), kernel)
        out = memoryview(bytearray(1003))
        codec.encode(parts, [(5, out[1:1002])])
        again = bytearray(1001)
        codec.encode(read_only, [(5, again)])
        assert out[1:1002] == again
        assert out[0] == out[1002] == 0


@pytest.mark.parametrize(
    ("shares", "numbers", "missing"),
    [
        ([b"a", b"b", b"c"], [0, 1, 2], 3),
        ([b"a", b"b", b"c", b"dd"], [0, 1, 2, 3], 4),
        ([b"", b"", b"", b""], [0, 1, 2, 3], 4),
        ([b"a", b"b", b"c", b"d"], [0, 1, 2, 2], 4),
        ([b"a", b"b", b"c", b"d"], [0, 1, 2, 6], 4),
        ([b"a", b"b", b"c", b"d"], [0, 1, 2, -1], 4),
        ([b"a", b"b", b"c", b"d"], [0, 1, 2, 3], 6),
    ],
)
def test_what_does_not_fit_is_refused_before_memory_is_touched(
    shares: list[bytes], numbers: list[int], missing: int
) -> None:
    codec = codec_for(Coding(CodecId.RS, 4, 6))
    with pytest.raises(InvalidCoding):
        codec.decode(shares, numbers, [(missing, bytearray(1))])


def test_a_target_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidCoding):
        codec_for(Coding(CodecId.RS, 1, 2)).encode([b"abc"], [(1, bytearray(2))])


@pytest.mark.parametrize("text", ["rs-4-6", "rs-1-1", "rs-256-256", "rep-3"])
def test_a_coding_survives_its_text(text: str) -> None:
    assert Coding.from_text(text).text == text


def test_the_short_form_is_reed_solomon() -> None:
    assert Coding.from_text("4/6") == Coding(CodecId.RS, 4, 6)


@pytest.mark.parametrize("text", ["", "6/4", "0/3", "3/257", "rep-0", "4-", "xor-2-3", "rs-4-6x", "٤/٦"])
def test_what_is_no_coding_is_refused(text: str) -> None:
    with pytest.raises(InvalidCoding):
        Coding.from_text(text)
