"""Mutations of ``.npy`` files: the description in the header, and its length."""

from __future__ import annotations

import struct
from random import Random

from tests.reliability.fuzzing import bytes_level

TYPES = (
    "<f4",
    ">f4",
    "<f8",
    "<f2",
    "|O",
    "|V4",
    "<U2",
    "|S4",
    "<i4",
    "<c8",
    "<f16",
    "|b1",
    "<M8",
    "",
)
SHAPES = (
    *(
        "()",
        "(0,)",
        "(12,)",
        "(4, 3)",
        "(3, 4)",
        "(2, 2, 3)",
        "(4, 4)",
        "(-1, 3)",
        "(4.0, 3)",
        "[4, 3]",
    ),
    *("(True, 12)", "None", "(4,", "4", "('a',)", "(1,) * 9", f"({10**30}, 1)", f"({2**62}, 4)"),
    *(
        f"({'9' * 5000},)",
        "(" * 200,
        "(" + "1, " * 70 + ")",
        "(4, 3) if 1 else 2",
        "(" + "-" * 900 + "1,)",
    ),
)
WORDS = ("descr", "fortran_order", "shape")


def mutated(rng: Random, data: bytes) -> bytes:
    """The file after one mutation of its header."""
    (length,) = struct.unpack("<H", data[8:10])
    header, body = data[10 : 10 + length].decode("latin-1"), data[10 + length :]
    fields = {"descr": "'<f4'", "fortran_order": "False", "shape": _between(header, "(", ")")}
    what = rng.randrange(7)
    if what == 0:
        fields["descr"] = repr(rng.choice(TYPES))
    elif what == 1:
        fields["descr"] = rng.choice(("[('a', '<f4')]", "[]", "1", "None", "('<f4', (2,))", "{}"))
    elif what == 2:
        fields["fortran_order"] = rng.choice(("True", "1", "None", "'x'", "__import__('os')"))
    elif what in (3, 4):
        fields["shape"] = rng.choice(SHAPES)
    elif what == 5:
        fields.pop(rng.choice(WORDS))
        fields |= rng.choice(({}, {"extra": "1"}, {"a\nb": "{}"}))
    else:
        body = bytes_level.mutated(rng, body)
    text = "{" + ", ".join(f"{key!r}: {value}" for key, value in fields.items()) + ", }\n"
    raw = text.encode("latin-1")
    version = rng.choice((b"\1\0",) * 9 + (b"\2\0", b"\3\0", b"\4\0"))
    size = rng.choice((len(raw),) * 9 + (0, len(raw) - 1, len(raw) + 1, 65535))
    stated = struct.pack("<H" if version == b"\1\0" else "<I", size & 65535)
    return data[:6] + version + stated + raw + body


def _between(text: str, start: str, end: str) -> str:
    return start + text.partition(start)[2].partition(end)[0] + end
