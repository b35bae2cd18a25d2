"""Mutations of zip archives (torch, npz): members, their sizes, checksums, compression, order."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from random import Random

from tests.reliability.fuzzing import bytes_level, hostile

Mutate = Callable[[Random, bytes], bytes]
Members = list[tuple[str, bytes, int]]  # name, content, compression
CENTRAL = b"PK\1\2"
# Fields of an entry of the directory: where they begin, and their struct format.
FIELDS = (
    (8, "<H"),
    (10, "<H"),
    (16, "<I"),
    (20, "<I"),
    (24, "<I"),
    (28, "<H"),
    (30, "<H"),
    (42, "<I"),
)


def mutation(inside: Mapping[str, Mutate]) -> Mutate:
    """A mutation of archives; ``inside`` says how to mutate a member, by the end of its name."""

    def mutated(rng: Random, data: bytes) -> bytes:
        if rng.random() < 0.2:
            return _with_field(rng, data)
        members = members_of(data)
        for _ in range(rng.choice((1, 1, 2))):
            if rng.random() < 0.6:
                at = rng.randrange(len(members))
                name, content, how = members[at]
                inner = next((m for end, m in inside.items() if name.endswith(end)), None)
                change = bytes_level.mutated if inner is None or rng.random() < 0.1 else inner
                members[at] = name, change(rng, content), how
            else:
                rng.choice(CHANGES)(rng, members)
        return written(members)

    return mutated


def members_of(data: bytes) -> Members:
    """The members of an honest archive, in order."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(one.filename, archive.read(one), one.compress_type) for one in archive.infolist()]


def written(members: Members) -> bytes:
    """An archive of these members; the names may be there twice."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content, how in members:
            archive.writestr(zipfile.ZipInfo(name), content, how)
    return buffer.getvalue()


def _with_field(rng: Random, data: bytes) -> bytes:
    """A number in an entry of the directory is another: a flag, a checksum, a size, a place."""
    starts = [at for at in range(len(data) - 46) if data.startswith(CENTRAL, at)]
    place, form = rng.choice(FIELDS)
    at = rng.choice(starts) + place
    size = struct.calcsize(form)
    most = (1 << 8 * size) - 1
    (old,) = struct.unpack(form, data[at : at + size])
    number = rng.choice((0, 1, 8, old + 1, old - 1, old * 2, most, most - 1, most // 2 + 1))
    return data[:at] + struct.pack(form, number & most) + data[at + size :]


def _drop(rng: Random, members: Members) -> None:
    del members[rng.randrange(len(members))]
    if not members:
        members.append(("x", b"", zipfile.ZIP_STORED))


def _twice(rng: Random, members: Members) -> None:
    members.insert(rng.randrange(len(members) + 1), rng.choice(members))


def _rename(rng: Random, members: Members) -> None:
    at = rng.randrange(len(members))
    name, content, how = members[at]
    new = rng.choice((hostile.name(rng), name + "x", name[1:], "../" + name, "/" + name, name * 2))
    new = new.replace("\0", "").encode("utf-8", "replace").decode() or "x"
    members[at] = new[:60_000], content, how


def _compress(rng: Random, members: Members) -> None:
    at = rng.randrange(len(members))
    name, content, _ = members[at]
    how = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    members[at] = name, content, how


def _shuffle(rng: Random, members: Members) -> None:
    rng.shuffle(members)


def _exchange(rng: Random, members: Members) -> None:
    one, other = rng.randrange(len(members)), rng.randrange(len(members))
    content = members[one][1]
    members[one] = members[one][0], members[other][1], members[one][2]
    members[other] = members[other][0], content, members[other][2]


CHANGES = (_drop, _twice, _rename, _rename, _compress, _shuffle, _exchange)
