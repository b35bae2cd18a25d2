"""Mutations of a file as bytes, whatever it holds."""

from __future__ import annotations

from random import Random

EDGES = (0, 1, 2, 3, 0x7F, 0x80, 0xFE, 0xFF)
MOST = 4  # mutations of one file


def flipped(rng: Random, data: bytes) -> bytes:
    """One bit is another."""
    return _replaced(data, at := _place(rng, data), bytes([data[at] ^ 1 << rng.randrange(8)]))


def overwritten(rng: Random, data: bytes) -> bytes:
    """A few bytes are others."""
    return _replaced(data, _place(rng, data), rng.randbytes(rng.randint(1, 8)))


def with_number(rng: Random, data: bytes) -> bytes:
    """A number of 1 to 8 bytes is the least, the largest or another that is just too large."""
    size = rng.choice((1, 2, 4, 8))
    number = rng.choice((0, 1, 1 << 8 * size - 1, (1 << 8 * size) - 1, len(data), len(data) + 1))
    return _replaced(data, _place(rng, data), (number % (1 << 8 * size)).to_bytes(size, "little"))


def cut(rng: Random, data: bytes) -> bytes:
    """The end is missing, or the start."""
    at = rng.randrange(len(data) + 1)
    return data[:at] if rng.random() < 0.8 else data[at:]


def without_some(rng: Random, data: bytes) -> bytes:
    """A few bytes in the middle are missing."""
    at = _place(rng, data)
    return data[:at] + data[at + rng.randint(1, 40) :]


def with_more(rng: Random, data: bytes) -> bytes:
    """A few bytes more stand somewhere."""
    at = rng.randrange(len(data) + 1)
    more = rng.randbytes(rng.randint(1, 16))
    return data[:at] + rng.choice((more, b"\0" * len(more), bytes([rng.choice(EDGES)]))) + data[at:]


def repeated(rng: Random, data: bytes) -> bytes:
    """A part stands there several times."""
    start = _place(rng, data)
    end = start + rng.randint(1, 200)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 50)) + data[end:]


def spliced(rng: Random, data: bytes) -> bytes:
    """A part is replaced by another part of the same file."""
    start, length = _place(rng, data), rng.randint(1, 64)
    return _replaced(data, _place(rng, data), data[start : start + length])


def zeroed(rng: Random, data: bytes) -> bytes:
    """A block was never written."""
    return _replaced(data, _place(rng, data), b"\0" * rng.randint(1, 512))[: len(data)]


ALL = (flipped, overwritten, with_number, cut, without_some, with_more, repeated, spliced, zeroed)


def mutated(rng: Random, data: bytes) -> bytes:
    """The file after one mutation, sometimes a few."""
    for _ in range(rng.choice((1, 1, 1, rng.randint(1, MOST)))):
        data = rng.choice(ALL)(rng, data or b"\0")
    return data


def _place(rng: Random, data: bytes) -> int:
    """A byte, more often one near the start, where headers are."""
    return rng.randrange(min(len(data), rng.choice((16, 256, len(data)))))


def _replaced(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]
