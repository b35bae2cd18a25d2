"""Mutations of pickles, one opcode at a time."""

from __future__ import annotations

import pickle
import pickletools
import struct
from random import Random

from tests.reliability.fuzzing import bytes_level, hostile

SNIPPETS = (
    *(
        b"(",
        b"(" * 500,
        b"0",
        b"1",
        b"2",
        b"N",
        b"}",
        b"]",
        b")",
        b"\x8f",
        b"(l",
        b"(d",
        b"(t",
        b".",
    ),
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"c__builtin__\ngetattr\n", b"ctorch\nload\n"),
    *(b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"cbuiltins\nset\n"),
    *(b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_parameter\n", b"ctorch\nSize\n"),
    *(b"ctorch.nn.modules.linear\nLinear\n", b"cnumpy\nndarray\n", b"ctorch._utils\nx y\n"),
    *(b"R", b"b", b"\x81", b"\x92", b"Q", b"u", b"s", b"e", b"a", b"\x90", b"\x91", b"\x93", b"o"),
    *(b"\x85", b"\x86", b"\x87", b"\x85" * 300, b"](" * 300 + b"e" * 300, b"q\xff", b"h\xff", b"r"),
    *(b"\x94", b"\x95" + b"\xff" * 8, b"\x82\1", b"\x83\1\0", b"P1\n", b"i__main__\nx\n", b"\x97"),
    *(b"\x8a\xff" + b"\xff" * 255, b"\x8b\xff\xff\xff\x7f", b"L" + b"9" * 5000 + b"L\n", b"Fnan\n"),
    *(
        b"I" + b"9" * 5000 + b"\n",
        b"X\xff\xff\xff\xff",
        b"X\2\0\0\0\xed\xa0",
        b"V\\ud800\n",
        b"S'\n",
    ),
    *(b"\x80\x05", b"\x80\xff", b"B\xff\xff\xff\xff", b"\x8e" + b"\xff" * 8, b"\x96" + b"\xff" * 8),
)


def pieces(data: bytes) -> list[tuple[str, bytes]]:
    """Name and bytes of each opcode of the first pickle in the data, with what follows it."""
    found = []
    starts = [(opcode.name, at or 0) for opcode, _, at in pickletools.genops(data)]
    ends = [at for _, at in starts[1:]] + [starts[-1][1] + 1]
    for (name, start), end in zip(starts, ends, strict=True):
        found.append((name, data[start:end]))
    return [*found, ("rest", data[ends[-1] :])] if ends[-1] < len(data) else found


def mutated(rng: Random, data: bytes) -> bytes:
    """The pickle after one mutation of its opcodes, sometimes a few."""
    try:
        parts = pieces(data)
    except ValueError:  # another mutation has cut it
        return bytes_level.mutated(rng, data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(parts))
        what = rng.randrange(6)
        if what == 0:
            del parts[at]
            parts = parts or [("STOP", b".")]
        elif what == 1:
            parts.insert(at, parts[rng.randrange(len(parts))])
        elif what == 2:
            parts.insert(at, ("snippet", rng.choice(SNIPPETS)))
        elif what == 3:
            other = rng.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        elif what == 4:
            parts[at] = ("snippet", rng.choice(SNIPPETS))
        else:
            parts[at] = ("argument", _argument(rng, *parts[at]))
    return b"".join(piece for _, piece in parts)


def _argument(rng: Random, name: str, piece: bytes) -> bytes:
    """The opcode with another argument, or another value in its place."""
    if name in ("BININT", "BININT1", "BININT2", "LONG1"):
        number = rng.choice((0, 1, -1, 2, 3, 5, 255, 2**31 - 1, -(2**31), 2**40, 2**63, 10**30))
        return _pushed(number)
    if name == "BINUNICODE":
        text = rng.choice((hostile.name(rng), "cpu", "cuda:0", "meta", "0", "1", "99", "storage"))
        raw = text.encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(raw)) + raw
    if name in ("BINPUT", "BINGET"):
        return piece[:1] + bytes([rng.randrange(256)])
    if name in ("NEWTRUE", "NEWFALSE", "NONE", "EMPTY_TUPLE", "EMPTY_DICT", "EMPTY_LIST"):
        return rng.choice((b"\x88", b"\x89", b"N", b")", b"}", b"]", _pushed(rng.randint(-1, 3))))
    if name == "GLOBAL":
        return rng.choice([one for one in SNIPPETS if one.startswith(b"c")])
    return _pushed(rng.choice((None, True, 1.5, (), [], {}, (1, 2), "x", b"x", 2**70, {"a": 1})))


def _pushed(value: object) -> bytes:
    """Opcodes that push a value."""
    return pickle.dumps(value, protocol=2)[2:-1]
