"""GF(2^8) with polynomial 0x11d, and the coefficients that turn any k shares into any other shares.

The code is polynomial interpolation: the k data parts are the values of a polynomial of degree < k at the
points of shares 0 to k - 1, and every further share is its value at a further point.  Share 0 lies at 0,
share i at 2^(i - 1).  Written as a matrix this is the systematic Vandermonde generator that zfec uses, so
our shares are byte-identical to zfec's; but Lagrange's formula gives each row directly, in O(k) after O(k^2),
where inverting the matrix costs O(k^3).  Source: docs/spec/erasure.md section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

POLYNOMIAL: Final = 0x11D
ORDER: Final = 255


def _powers() -> tuple[bytes, bytes]:
    """Exp (doubled, so that a sum of two logarithms needs no modulo) and log of the generator 2."""
    exp, log, value = bytearray(2 * ORDER), bytearray(256), 1
    for power in range(ORDER):
        exp[power] = exp[power + ORDER] = value
        log[value] = power
        value <<= 1
        if value > 255:
            value ^= POLYNOMIAL
    return bytes(exp), bytes(log)


EXP, LOG = _powers()


def multiply(a: int, b: int) -> int:
    """The product of two field elements."""
    return EXP[LOG[a] + LOG[b]] if a and b else 0


def _point(number: int) -> int:
    return EXP[number - 1] if number else 0


@lru_cache(maxsize=256)
def rows(known: tuple[int, ...], wanted: tuple[int, ...]) -> bytes:
    """Coefficients that give the shares `wanted` from the shares `known`, row by row.

    Args:
        known: k distinct share numbers.
        wanted: any share numbers.

    Returns:
        len(wanted) * k bytes; wanted share i = sum over j of row[i][j] * known share j.

    Cost: O(k^2 + k * len(wanted)), cached.
    """
    points = [_point(number) for number in known]
    # weight[s] = log of the product of (x_s - x_m) over all m != s; subtraction in the field is xor.
    weights = [sum(LOG[x ^ other] for other in points if other != x) for x in points]
    table = bytearray()
    for number in wanted:
        x = _point(number)
        if x in points:
            table += bytes(int(x == point) for point in points)
            continue
        product = sum(LOG[x ^ point] for point in points)
        table += bytes(
            EXP[(product - LOG[x ^ point] - weight) % ORDER]
            for point, weight in zip(points, weights, strict=True)
        )
    return bytes(table)


def check_numbers(numbers: Sequence[int], limit: int) -> bool:
    """Whether these are distinct share numbers below `limit`."""
    return len(set(numbers)) == len(numbers) and all(0 <= number < limit for number in numbers)
