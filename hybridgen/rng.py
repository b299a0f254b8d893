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
_CACHE = 32768


def philox4x32(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Return 128 random bits for each counter, as four 32-bit words.

    Arguments:
        counter: Counter words, each below 2^32, with shape `(..., 4)`.
        key: The two 32-bit words of the key.

    Returns:
        Random words, each below 2^32, with shape `(..., 4)`.
    """
    words = np.moveaxis(counter.astype(np.uint64), -1, 0)
    return np.stack(_philox([np.array(w) for w in words], key), axis=-1)


def _philox(words: list[NDArray[np.uint64]], key: tuple[int, int]) -> list[NDArray[np.uint64]]:
    """Return the random words of counters, four arrays `(N,)`, in the memory of the counters."""
    c0, c1, c2, c3 = words
    p0, p1 = np.empty_like(c0), np.empty_like(c0)
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    for _ in range(10):
        np.multiply(_M0, c0, out=p0)
        np.multiply(_M1, c2, out=p1)
        np.right_shift(p1, _32, out=c0)
        c0 ^= c1
        c0 ^= k0
        np.right_shift(p0, _32, out=c2)
        c2 ^= c3
        c2 ^= k1
        np.bitwise_and(p1, _LOW, out=c1)
        np.bitwise_and(p0, _LOW, out=c3)
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return [c0, c1, c2, c3]


def _key(root_seed: int, stream: str) -> tuple[int, int]:
    entropy = [root_seed, *stream.encode()]
    k0, k1 = np.random.SeedSequence(entropy).generate_state(2, np.uint32)
    return int(k0), int(k1)


def _uniform(key: tuple[int, int], index: NDArray[np.uint64], count: int) -> NDArray[np.float64]:
    """Return uniform numbers of a few members, with shape `(N, count)`."""
    blocks = -(-count // 2)
    shape = (len(index), blocks)
    c0 = np.broadcast_to(np.arange(blocks, dtype=np.uint64), shape)
    c1 = np.broadcast_to((index & _LOW)[:, None], shape)
    c2 = np.broadcast_to((index >> _32)[:, None], shape)
    words = [c.flatten() for c in (c0, c1, c2)]
    w0, w1, w2, w3 = _philox([*words, np.zeros_like(words[0])], key)
    bits = np.empty((w0.size, 2), dtype=np.uint64)
    np.left_shift(w0, _32, out=w0)
    np.bitwise_or(w0, w1, out=bits[:, 0])
    np.left_shift(w2, _32, out=w2)
    np.bitwise_or(w2, w3, out=bits[:, 1])
    bits >>= np.uint64(11)
    out = bits.reshape(len(index), 2 * blocks)[:, :count].astype(np.float64)
    out += 0.5
    out *= 2.0**-53
    return out


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
    index = np.asarray(indices, dtype=np.uint64)
    key, out = _key(root_seed, stream), np.empty((index.size, count))
    for rows in _cuts(index.size, count):
        out[rows] = _uniform(key, index[rows], count)
    return out


def _cuts(members: int, count: int) -> Iterator[slice]:
    """Yield members so few at a time that what they need stays in the cache."""
    size = max(1, _CACHE // max(1, count))
    yield from (slice(i, i + size) for i in range(0, members, size))


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
    index = np.asarray(indices, dtype=np.uint64)
    key, out = _key(root_seed, stream), np.empty((index.size, pairs, 2))
    for rows in _cuts(index.size, 2 * pairs):
        u = _uniform(key, index[rows], 2 * pairs)
        radius = np.log(u[:, :pairs])
        radius *= -2.0
        np.sqrt(radius, out=radius)
        angle = 2.0 * np.pi * u[:, pairs:]
        np.multiply(radius, np.cos(angle), out=out[rows, :, 0])
        np.multiply(radius, np.sin(angle), out=out[rows, :, 1])
    return out.reshape(index.size, 2 * pairs)[:, :count]


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
