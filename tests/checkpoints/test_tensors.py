import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.errors import RankscopeError


def file_with(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """Bytes of a safetensors file whose header may be anything."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(shape: list[object], start: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


DATA = bytes(16)
GOOD = entry([2, 2], 0, 16)
DAMAGED = {
    "empty": (b"", "is empty"),
    "seven bytes": (b"\1" * 7, "cut short or not a safetensors"),
    "length past the end": (file_with({"a": GOOD}, DATA, length=5000), "cut short"),
    "length of 2^63": (file_with({}, length=2**63), "cut short"),
    "length zero": (file_with(b""), "damaged safetensors header"),
    "not JSON": (file_with(b"{hello}"), "damaged safetensors header"),
    "a list": (file_with([1, 2]), "not a table"),
    "not UTF-8": (file_with(b'{"\xff\xfe":1}'), "damaged safetensors header"),
    "nested deeply": (file_with(b'{"a":' + b"[" * 10**5), "damaged safetensors header"),
    "a name twice": (
        file_with(b'{"a":%b,"a":%b}' % (2 * (json.dumps(GOOD).encode(),)), DATA),
        "has 'a' twice",
    ),
    "overlap": (
        file_with({"a": GOOD, "b": entry([2, 2], 8, 24)}, bytes(24)),
        "'b': its data overlaps",
    ),
    "one range twice": (file_with({"a": GOOD, "b": GOOD}, DATA), "its data overlaps"),
    "hole": (
        file_with({"a": GOOD, "b": entry([2, 2], 24, 40)}, bytes(40)),
        "'b': its data leaves a hole",
    ),
    "rest": (file_with({"a": GOOD}, DATA + b"PK\3\4"), "4 bytes after its last tensor"),
    "cut by a byte": (file_with({"a": GOOD}, DATA[:-1]), "1 of .* bytes are missing"),
    "size and shape differ": (file_with({"a": entry([2, 3], 0, 16)}, DATA), "takes 24 bytes"),
    "product overflows": (
        file_with({"a": entry([2**33, 2**33], 0, 16)}, DATA),
        "takes over .* its offsets span 16",
    ),
    "a size of many digits": (
        file_with({"a": entry([10**4200, 10**4200], 0, 16)}, DATA),
        r"\.\.\..* integers from 0 to",
    ),
    "negative dimension": (file_with({"a": entry([-2, -2], 0, 16)}, DATA), "integers from 0 to"),
    "fractional dimension": (
        file_with({"a": entry([2.0, 2], 0, 16)}, DATA),
        "integers from 0 to",
    ),
    "bool dimension": (file_with({"a": entry([True, 4], 0, 16)}, DATA), "integers from 0 to"),
    "an axis too many": (file_with({"a": entry([1] * 63 + [2, 2], 0, 16)}, DATA), "has 65 axes"),
    "offsets reversed": (file_with({"a": entry([2, 2], 16, 0)}, DATA), "ends before it starts"),
    "dtype that is a list": (file_with({"a": entry([2, 2], 0, 16, ["F32"])}, DATA), "is not text"),
    "no shape": (
        file_with({"a": {"dtype": "F32"}}, DATA),
        "not have a dtype, a shape and data_offsets",
    ),
    "git-lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1",
        "git lfs pull",
    ),
    "web page": (b"<!DOCTYPE html><html>", "web page"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused_in_one_line_with_its_name(tmp_path: Path, name: str) -> None:
    content, message = DAMAGED[name]
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(RankscopeError, match=message) as caught:
        open_tensors(tmp_path / "model.safetensors")
    assert str(tmp_path / "model.safetensors") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pipes_folders_and_absent_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(RankscopeError, match="not a regular file"):
            open_tensors(path)
    with pytest.raises(RankscopeError, match="No such file"):
        open_tensors(tmp_path / "absent")


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_a_tensor_is_read_as_it_was_written(
    dtype: type, tmp_path: Path, rng: np.random.Generator
) -> None:
    written = {"b": rng.normal(size=(3, 5)).astype(dtype), "a": rng.normal(size=4).astype(dtype)}
    save_file(written, tmp_path / "file", metadata={"step": "5"})
    found = open_tensors(tmp_path / "file")
    assert {name: tensor.shape for name, tensor in found.items()} == {"a": (4,), "b": (3, 5)}
    for name, tensor in found.items():
        assert (tensor.read() == written[name]).all() and tensor.read().dtype == dtype


def test_bfloat16_is_read_exactly_without_torch(tmp_path: Path) -> None:
    numbers = [1.0, -2.5, 0.0, 3.0517578125e-05, float("inf"), 1.1754943508222875e-38]
    bits = (np.array(numbers, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    header = {"w": entry([2, 3], 0, 12, "BF16")}
    (tmp_path / "file").write_bytes(file_with(header, bits))
    tensor = open_tensors(tmp_path / "file")["w"]
    assert tensor.dtype == "bfloat16"
    assert tensor.read().reshape(-1).tolist() == numbers


def test_quantised_numbers_are_refused_by_name(tmp_path: Path) -> None:
    save_file({"w": np.ones((2, 2), np.int8)}, tmp_path / "file")
    with pytest.raises(RankscopeError, match="'w': is stored as int8"):
        open_tensors(tmp_path / "file")["w"].read()


def test_a_file_that_shrinks_after_opening_is_an_error(tmp_path: Path) -> None:
    save_file({"w": np.ones((64, 64))}, tmp_path / "file")
    tensor = open_tensors(tmp_path / "file")["w"]
    os.truncate(tmp_path / "file", 1000)
    with pytest.raises(RankscopeError, match="'w': is cut short"):
        tensor.read()


def test_names_are_printed_without_control_characters(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(file_with({"\x1b[31mred\n": entry([2, 3], 0, 16)}, DATA))
    with pytest.raises(RankscopeError) as caught:
        open_tensors(tmp_path / "file")
    assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value)


def test_empty_tensors_may_share_a_place(tmp_path: Path) -> None:
    header = {"none": entry([0], 0, 0), "a": GOOD, "nothing": entry([0, 4], 16, 16)}
    (tmp_path / "file").write_bytes(file_with(header, DATA))
    assert open_tensors(tmp_path / "file")["nothing"].read().shape == (0, 4)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_mutated_header_gives_a_table_or_an_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(file_with({"a": GOOD, "b": entry([4], 16, 32)}, bytes(32)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 33))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("mutants") / "file"
    path.write_bytes(content)
    try:
        found = open_tensors(path)
    except RankscopeError:
        return
    assert all(tensor.offset + tensor.nbytes <= len(content) for tensor in found.values())
