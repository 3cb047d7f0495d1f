"""Random damage, shared by the tests of files that must be verified."""

from __future__ import annotations

import numpy as np


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """`data` with a few bits flipped, bytes replaced, cut out, put in or repeated; never the same."""
    result = bytearray(data)
    while bytes(result) == data:
        for _ in range(rng.integers(1, 4)):
            at, length = int(rng.integers(len(result))), int(rng.integers(1, 9))
            match rng.integers(5):
                case 0:
                    result[at] ^= 1 << int(rng.integers(8))
                case 1:
                    result[at] = int(rng.integers(256))
                case 2 if len(result) > length:
                    del result[at : at + length]
                case 3:
                    result[at:at] = rng.bytes(length)
                case _:
                    result[at:at] = result[at : at + length]
    return bytes(result)
