"""Small files that would take minutes or gigabytes if nothing limited them, by name."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

NAME = "model.layers.0.self_attn.q_proj.weight"
MEGA = 10**6


@dataclass(frozen=True)
class Bomb:
    """What is written into the folder of a checkpoint, and how opening it must end."""

    name: str
    write: Callable[[Path], object]
    ends: str  # its reason code, or "done"


def safetensors(header: object, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def torch_zip(program: bytes, data: bytes = bytes(64)) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", data)
    return file.getvalue()


def pickled(*operations: bytes) -> bytes:
    return b"\x80\x04" + b"".join(operations) + b"."


def put(slot: int) -> bytes:
    return b"r" + struct.pack("<I", slot) + b"0"


def get(slot: int) -> bytes:
    return b"j" + struct.pack("<I", slot)


def text(letters: int) -> bytes:
    return b"X" + struct.pack("<I", letters) + b"k" * letters


def table_of(entries: int) -> bytes:
    return b"}(" + b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(entries)) + b"u"


def towers(level: Callable[[bytes], bytes], *, high: int = 40) -> bytes:
    """Two equal towers, in slots ``high`` and ``high + 100``; equal only if all paths are equal."""
    made = b""
    for first in (0, 100):
        made += b"K\0" + put(first)
        for i in range(first, first + high):
            made += level(get(i)) + put(i + 1)
    return made


def in_a_set(built: bytes, *, high: int = 40) -> bytes:
    return pickled(built, b"\x8f(", get(high), get(high + 100), b"\x90")


def as_keys(built: bytes, *, high: int = 40) -> bytes:
    return pickled(built, b"}(", get(high), b"N", get(high + 100), b"Nu")


def with_one_hash(count: int) -> bytes:
    """Different tuples of -1 and -2, which all have one hash."""
    rows = (f"{i:016b}" for i in range(count))
    minus = {"0": b"J\xff\xff\xff\xff", "1": b"J\xfe\xff\xff\xff"}
    keys = (b"(" + b"".join(minus[bit] for bit in row) + b"tN" for row in rows)
    return pickled(b"}(", b"".join(keys), b"u")


def view(shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """A table with one tensor of float32 on a storage of 16 elements."""

    def row(numbers: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"J" + struct.pack("<i", n) for n in numbers) + b"t"

    storage = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuK\x10tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + row(shape) + row(strides)
    key = b"X" + struct.pack("<I", len(NAME)) + NAME.encode()
    return pickled(b"}" + key + tensor + b"\x89NtRs")


def compressed(size: int, shape: tuple[int, ...]) -> bytes:
    """A ``.npz`` whose array is ``size`` bytes of zeros."""
    described = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode()
    described += b" " * (64 - (len(described) + 11) % 64) + b"\n"
    file = io.BytesIO()
    head = b"\x93NUMPY\1\0" + struct.pack("<H", len(described)) + described
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{NAME}.npy", head + bytes(size))
    return file.getvalue()


def sparse(folder: Path, side: int) -> None:
    """A whole and consistent file of a square matrix, which takes no room on the disk."""
    size = 4 * side**2
    entry = {"dtype": "F32", "shape": [side, side], "data_offsets": [0, size]}
    raw = safetensors({NAME: entry})
    with (folder / "model.safetensors").open("wb") as file:
        file.write(raw)
        file.truncate(len(raw) + size)


def adapter(folder: Path, *, path: str = f"{'long_' * 12}.q_proj", **config: object) -> None:
    factors = {"lora_A": [2, 4], "lora_B": [6, 2]}
    header, end = {}, 0
    for name, shape in factors.items():
        start, end = end, end + 4 * shape[0] * shape[1]
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
        header[f"base_model.model.{path}.{name}.weight"] = entry
    (folder / "adapter_model.safetensors").write_bytes(safetensors(header, bytes(end)))
    stated = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, **config}
    (folder / "adapter_config.json").write_text(json.dumps(stated))


def _torch(program: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "pytorch_model.bin").write_bytes(torch_zip(program))


def _header(raw: bytes, data: bytes = b"") -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors").write_bytes(safetensors(raw, data))


def _named(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _patterns(*patterns: str) -> Callable[[Path], object]:
    return lambda folder: adapter(folder, alpha_pattern=dict.fromkeys(patterns, 8))


def _twice() -> bytes:
    entry = b'"n%05d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return b"{" + b",".join(entry % min(i, 59_999) for i in range(60_001)) + b"}"


def _directory(folder: Path) -> None:
    """A zip of 400 000 empty entries, made of one entry's records."""
    count = 400_000
    name = b"a/000000"
    local = b"PK\3\4" + bytes(22) + struct.pack("<HH", len(name), 0) + name
    one = b"PK\1\2" + bytes(24) + struct.pack("<HHH", len(name), 0, 0) + bytes(12) + name
    listing = one * count
    large = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(listing), 38)
    place = struct.pack("<4sIQI", b"PK\6\7", 0, 38 + len(listing), 1)
    end = b"PK\5\6" + b"\xff" * 16 + bytes(2)
    (folder / "pytorch_model.bin").write_bytes(local + listing + large + place + end)


def _zeros(folder: Path) -> None:
    (folder / "w.npz").write_bytes(compressed(2**26, (2**12, 2**12)))


def _scaled(name: str) -> Callable[[Path], object]:
    """OrderedDict, or something unknown, called again and again with one large table."""
    calls = b"h\1h\0\x85R" * 2000
    return _torch(pickled(table_of(50_000), b"q\0", name.encode(), b"q\1(", calls, b"l"))


def _targets(folder: Path) -> None:
    """An adapter of 500 modules, and 100 000 targets of which none is there."""
    adapter(folder, target_parameters=[f"a{i}.b" for i in range(100_000)])
    header, end = {}, 0
    for i in range(500):
        for factor, shape in (("lora_A", [2, 4]), ("lora_B", [6, 2])):
            start, end = end, end + 4 * shape[0] * shape[1]
            entry = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
            header[f"base_model.model.l{i}.q_proj.{factor}.weight"] = entry
    (folder / "adapter_model.safetensors").write_bytes(safetensors(header, bytes(end)))


def _packed(count: int, *, scales: bool = False) -> bytes:
    """Whole numbers in one module, perhaps with scales that fit each of them; all are empty."""
    odd = [2 * i + 3 for i in range(count)]  # else one would fit as a companion of another
    shapes = {f"m.n{i}": ("I8", [i, i, 0]) for i in odd}
    if scales:
        shapes |= {f"m.s{i}": ("F32", [*odd[i : i + 40], 0]) for i in range(0, count, 40)}
    entries = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]}
        for name, (dtype, shape) in shapes.items()
    }
    entries[NAME] = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    return json.dumps(entries).encode()


def _yaml(content: str) -> Callable[[Path], object]:
    """A checkpoint of LitGPT with this in its config."""

    def write(folder: Path) -> None:
        (folder / "lit_model.pth").write_bytes(torch_zip(view((4, 4), (4, 1))))
        (folder / "model_config.yaml").write_text(f"a: {content}\n")

    return write


BOMBS = (
    Bomb("towers of frozensets", _torch(in_a_set(towers(
        lambda below: b"(" + below + b"K\1\x86" + below + b"K\2\x86\x91"))), "over-limit"),
    Bomb("towers of tuples as keys", _torch(as_keys(towers(
        lambda below: below + below + b"\x86"))), "over-limit"),
    Bomb("towers of frozensets of frozensets", _torch(in_a_set(towers(
        lambda below: b"(" + below + b"N\x91"))), "over-limit"),
    Bomb("keys with one hash", _torch(with_one_hash(40_000)), "no-state-dict"),
    Bomb("marks", _torch(pickled(b"(" * MEGA)), "over-limit"),
    Bomb("empty lists", _torch(pickled(b"(", b"]" * 4 * MEGA, b"l")), "over-limit"),
    Bomb("memo", _torch(pickled(b"N", b"\x94" * 4 * MEGA)), "over-limit"),
    Bomb("long bytes as a key of many", _torch(pickled(
        b"B", struct.pack("<I", MEGA), bytes(MEGA), b"q\0(", b"}h\0Ns" * 9000, b"l")),
        "over-limit"),
    Bomb("long number as a key of many", _torch(pickled(
        b"(\x8b", struct.pack("<i", MEGA), b"\x7f" * MEGA, b"tq\0(", b"}h\0Ns" * 9000, b"l")),
        "over-limit"),
    Bomb("a table copied often", _scaled("ccollections\nOrderedDict\n"), "over-limit"),
    Bomb("a table given to what is unknown", _scaled("cx\ny\n"), "over-limit"),
    Bomb("a tuple given to what is unknown", _torch(pickled(
        b"(" + b"N" * 50_000 + b"tq\0cx\ny\nq\1(", b"h\1h\0R" * 2000, b"l")), "over-limit"),
    Bomb("a table added to attributes", _torch(pickled(
        table_of(50_000), b"q\0cargparse\nNamespace\nq\1(", b"h\1)Rh\0b" * 2000, b"l")),
        "over-limit"),
    Bomb("a text encoded often", _torch(pickled(
        text(MEGA), b"q\0c_codecs\nencode\nq\1(", b"h\1h\0\x85R" * 2000, b"l")), "over-limit"),
    Bomb("nested calls that copy", _torch(pickled(
        table_of(50_000), b"q\0ccollections\nOrderedDict\nq\1",
        b"ctorch._tensor\n_rebuild_from_type_v2\nq\2(", b"h\2h\1h\1h\0\x85\x87R" * 2000, b"l")),
        "damaged"),
    Bomb("an expanded view", _torch(view((2**20, 2**20), (0, 0))), "done"),
    Bomb("sizes of a thousand digits", _torch(pickled(
        b"(", b"\x8b", struct.pack("<i", MEGA), b"\x7f" * MEGA, b"q\0", b"h\0" * 60, b"tq\1",
        b"ctorch\nSize\nh\1\x85R")), "damaged"),
    Bomb("a name twice among many", _header(_twice()), "duplicate-key"),
    Bomb("a header of lists", _header(b'{"__metadata__":[' + b"[]," * 3 * MEGA + b"0]}"),
         "over-limit"),
    Bomb("a long name", _header(json.dumps({
        "a.0." * MEGA + "weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
        }).encode(), bytes(16)), "done"),
    Bomb("sizes that make a number of 270 000 digits", _header(
        b'{"w":{"dtype":"F32","shape":[' + b",".join([b"9" * 4200] * 64)
        + b'],"data_offsets":[0,4]}}', bytes(4)), "header-type"),
    Bomb("a directory of 400 000 entries", _directory, "over-limit"),
    Bomb("an array of compressed zeros", _zeros, "done"),
    Bomb("an index of lists", _named(
        "model.safetensors.index.json", b'{"weight_map":[' + b"[]," * 3 * MEGA + b"0]}"),
        "over-limit"),
    Bomb("an index of 2 GB", lambda folder: _sparse_index(folder), "too-large"),
    Bomb("nested repeats", _patterns("([a-z0-9_.]*)*!"), "done"),
    Bomb("repeats of alternatives", _patterns("(a|a|[a-z_.])*!", "([a-z_.]|[a-z0-9_.])*!"), "done"),
    Bomb("many repeats in a row", _patterns(".*" * 20 + "!"), "done"),
    Bomb("nested counts", _patterns("((a{0,60000}){0,60000}){0,60000}"), "adapter-config"),
    Bomb("a count of 20 digits", _patterns("a{99999999999999999999}"), "adapter-config"),
    Bomb("nothing, 4 billion times", _patterns("(){4000000000}", "((){0,9}){0,4000000000}"),
         "adapter-config"),
    Bomb("a set of 900 letters", lambda folder: adapter(
        folder, path=".".join("ab" * 200), alpha_pattern={
            f"([{''.join(map(chr, range(1000, 1900)))}.a-z])*!": 8}), "done"),
    Bomb("dots that fit up to the last letter", lambda folder: adapter(
        folder, path="q" * 1000, alpha_pattern={
            f"{'.' * 980}q{i:018b}.": 8 for i in range(2**15)}), "done"),
    Bomb("many beginnings without a letter", lambda folder: adapter(
        folder, path="q." * 500, alpha_pattern={
            f"{'(a?){150}'}{i}": 8 for i in range(2000)}), "over-limit"),
    Bomb("many counts", _patterns(*(f"a{{300}}{i}" for i in range(50_000))), "over-limit"),
    Bomb("many counts in both tables", lambda folder: adapter(
        folder, **{entry: {f"a{{300}}{i}": 8 for i in range(900)}
                   for entry in ("rank_pattern", "alpha_pattern")}), "over-limit"),
    Bomb("many targeted parameters", _targets, "done"),
    Bomb("packed weights in one module", _header(_packed(5000), bytes(16)), "done"),
    Bomb("packed weights with scales that fit", _header(
        _packed(5000, scales=True), bytes(16)), "over-limit"),
    Bomb("brackets in YAML", _yaml("[" * 5000), "over-limit"),
    Bomb("brackets side by side in YAML",
         _yaml("[" + ("[" * 60 + "]" * 60 + ",") * 300 + "]"), "done"),
    Bomb("a long list in YAML", _yaml("[" + "1," * 2**18 + "]"), "over-limit"),
    Bomb("dashes in YAML", _yaml("\n" + ("- " * 60 + "x\n") * 3000), "over-limit"),
    Bomb("900 brackets", _patterns("(" * 900), "adapter-config"),
    Bomb("a flag within", _patterns("(?i)q_proj"), "adapter-config"),
    Bomb("50 000 patterns", _patterns(*(f"x{i}.*y" for i in range(50_000))), "over-limit"),
    Bomb("metadata of lists", _named(".metadata", pickled(b"(", b"]" * 4 * MEGA, b"l")),
         "over-limit"),
)  # fmt: skip


def _sparse_index(folder: Path) -> None:
    with (folder / "model.safetensors.index.json").open("wb") as file:
        file.write(b'{"weight_map":{')
        file.truncate(2**31)
