r"""Counter-based random numbers: a member depends on (root seed, stream, index) alone.

Philox4x32-10 maps a 128-bit counter and a 64-bit key to 128 random bits by ten rounds

.. math:: (c_0, c_1, c_2, c_3) \mapsto (h(M_1 c_2) \oplus c_1 \oplus k_0,\; l(M_1 c_2),\;
          h(M_0 c_0) \oplus c_3 \oplus k_1,\; l(M_0 c_0))

where :math:`h` and :math:`l` are the high and low halves of the 64-bit product and the key grows
by a constant each round. The key is hashed from (root seed, stream), the counter is
(block, index), so member 7 of a million is the same whether it is drawn alone, in a batch of
ten or on another machine.

References:
    Parallel random numbers: as easy as 1, 2, 3 (Salmon et al., 2011), doi:10.1145/2063384.2063405
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

__all__ = ["normal", "philox4x32", "scoped", "seed_of", "uniform"]

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox4x32(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Return 128 random bits for each counter, as four 32-bit words.

    Arguments:
        counter: Counter words, each below 2^32, with shape `(..., 4)`.
        key: The two 32-bit words of the key.

    Returns:
        Random words, each below 2^32, with shape `(..., 4)`.
    """
    c0, c1, c2, c3 = np.moveaxis(counter.astype(np.uint64), -1, 0)
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _LOW, (p0 >> _32) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return np.stack([c0, c1, c2, c3], axis=-1)


def _words(root_seed: int, stream: str, indices: ArrayLike, count: int) -> NDArray[np.uint64]:
    """Return `(N, 2 * count)` 32-bit words, `count` pairs for each index."""
    index = np.asarray(indices, dtype=np.uint64)
    entropy = [root_seed, *stream.encode()]
    k0, k1 = np.random.SeedSequence(entropy).generate_state(2, np.uint32)
    blocks = -(-count // 2)
    counter = np.zeros((index.size, blocks, 4), dtype=np.uint64)
    counter[..., 0] = np.arange(blocks, dtype=np.uint64)
    counter[..., 1] = (index & _LOW)[:, None]
    counter[..., 2] = (index >> _32)[:, None]
    return philox4x32(counter, (int(k0), int(k1))).reshape(index.size, 4 * blocks)[:, : 2 * count]


def uniform(root_seed: int, stream: str, indices: ArrayLike, count: int) -> NDArray[np.float64]:
    """Draw uniform numbers in the open interval (0, 1), the same for an index in any batch.

    Arguments:
        root_seed: The seed of the whole study, not negative.
        stream: What the numbers are for; different streams are independent.
        indices: Member indices, not negative, with shape `(N,)`.
        count: How many numbers each member needs.

    Returns:
        Uniform numbers with 53 random bits, with shape `(N, count)`.

    Example:
        >>> bool((uniform(0, "x0", [7], 2) == uniform(0, "x0", range(10), 2)[7]).all())
        True
    """
    words = _words(root_seed, stream, indices, count)
    high, low = words[:, 0::2], words[:, 1::2]
    bits = ((high << _32) | low) >> np.uint64(11)
    return (bits.astype(np.float64) + 0.5) * 2.0**-53


def normal(root_seed: int, stream: str, indices: ArrayLike, count: int) -> NDArray[np.float64]:
    """Draw standard normal numbers by Box and Muller, the same for an index in any batch.

    Arguments:
        root_seed: The seed of the whole study, not negative.
        stream: What the numbers are for; different streams are independent.
        indices: Member indices, not negative, with shape `(N,)`.
        count: How many numbers each member needs.

    Returns:
        Standard normal numbers, with shape `(N, count)`.
    """
    pairs = -(-count // 2)
    u = uniform(root_seed, stream, indices, 2 * pairs)
    radius, angle = np.sqrt(-2.0 * np.log(u[:, :pairs])), 2.0 * np.pi * u[:, pairs:]
    both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return both.reshape(len(u), 2 * pairs)[:, :count]


def seed_of(root_seed: int, stream: str) -> int:
    """Return a 63-bit seed for foreign generators, fixed by root seed and stream.

    Example:
        >>> seed_of(0, "init") == seed_of(0, "init"), seed_of(0, "init") == seed_of(0, "shuffle")
        (True, False)
    """
    entropy = [root_seed, *stream.encode()]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextlib.contextmanager
def scoped(seed: int) -> Iterator[None]:
    """Run foreign code under a seed and leave torch's global generators as they were.

    Module initialisation and torch distributions take no generator; this is their door.

    Example:
        >>> with scoped(0):
        ...     a = torch.nn.Linear(2, 2).weight
        >>> with scoped(0):
        ...     b = torch.nn.Linear(2, 2).weight
        >>> torch.equal(a, b)
        True
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
