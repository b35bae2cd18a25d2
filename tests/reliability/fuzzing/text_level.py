"""Mutations of files of lines that people write: TOML, YAML, CSV."""

from __future__ import annotations

import re
from random import Random

from tests.reliability.fuzzing import bytes_level, hostile, json_level

VALUE = re.compile(r"(?<=[=:])[^,\]}\n]+")
TOML_VALUES = (
    *(
        "[]",
        "{}",
        "1979-05-27T07:32:00Z",
        "inf",
        "nan",
        "0x10",
        "'x'",
        '"""x',
        "true",
        "[[1], 'a']",
    ),
    *("-1", "1e400", "9" * 5000, "[" * 2000, "&a [*a]", "!!python/object:os.system x", "~", "''"),
    *("'('", "'(a+)+$'", "'{layer}'", "'{}'", "'[0-9'", "['q', 'q']", "'\\\\1'", '"\\uD800"'),
)


def mutated(rng: Random, data: bytes) -> bytes:
    """The file after a mutation of a line, of a value, or of the order of its lines."""
    lines = data.decode("utf-8").split("\n")
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(lines))
        what = rng.randrange(5)
        if what == 0:
            lines.insert(rng.randrange(len(lines) + 1), lines[at])
        elif what == 1:
            lines[at] = ""
        elif what == 2:
            lines[at] = bytes_level.mutated(rng, lines[at].encode()).decode("latin-1")
        else:
            lines[at] = _with_value(rng, lines[at])
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def mutated_cells(rng: Random, data: bytes) -> bytes:
    """A table of comma-separated values, a cell or a line of which is another."""
    lines = [line.split(",") for line in data.decode("utf-8").split("\n")]
    line = rng.choice(lines)
    at = rng.randrange(len(line))
    what = rng.randrange(4)
    if what == 0:
        line[at] = json_level.dumped(hostile.value(rng))
    elif what == 1:
        line.insert(at, rng.choice(("", "1", '"', "x", "nan")))
    elif what == 2:
        del line[at]
    else:
        line[at] = rng.choice((line[at] * 2, "", "x", '"', "1e999", "\0", "-" + line[at]))
    return "\n".join(",".join(cells) for cells in lines).encode("utf-8", "replace")


def _with_value(rng: Random, line: str) -> str:
    places = list(VALUE.finditer(line))
    if not places:
        return rng.choice(("[x]", "[[x]]", "x = 1", "x", f"{line}{line}", "- x", "x: 1"))
    where = rng.choice(places)
    new = rng.choice((*TOML_VALUES, f" {json_level.dumped(hostile.value(rng))}"))
    return f"{line[: where.start()]} {new}{line[where.end() :]}"
