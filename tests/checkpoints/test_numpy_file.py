import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.files import zip_file
from rankscope.checkpoints.files.numpy_file import CompressedArray, open_arrays
from rankscope.checkpoints.layouts import layout_of
from rankscope.checkpoints.regions import Part, Region
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.errors import RankscopeError

SAVERS = {"stored": np.savez, "compressed": np.savez_compressed}


@pytest.fixture(params=SAVERS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Save arrays by name in each of the ways."""

    def save(**arrays: Any) -> Path:
        SAVERS[request.param](tmp_path / "saved.npz", **arrays)
        return tmp_path / "saved.npz"

    return save


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_as_they_were_written(
    saved: Any, dtype: type, order: str, rng: np.random.Generator
) -> None:
    arrays = {
        "h.0.weight": np.asarray(rng.normal(size=(5, 3)), dtype=dtype, order=order),
        "deep": np.asarray(rng.normal(size=(2, 3, 4)), dtype=dtype, order=order),
        "row": rng.normal(size=7).astype(dtype),
        "number": np.array(2.5, dtype=dtype),
        "none": np.zeros((0, 3), dtype=dtype),
    }
    found, skips = open_arrays(saved(**arrays))
    assert skips == () and list(found) == list(arrays)
    for name, array in arrays.items():
        tensor, read = found[name], found[name].read()
        assert (tensor.name, tensor.dtype, tensor.shape) == (name, dtype.__name__, array.shape)
        assert read.dtype == dtype and read.shape == array.shape and (read == array).all()
        assert tensor.elements(0, array.size).tobytes() == array.tobytes("C")
    part = Part(found["h.0.weight"], Region.of((5, 3)).transposed())
    assert (part.read() == arrays["h.0.weight"].T).all()


def test_stored_arrays_are_lazy_and_compressed_ones_are_not(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.savez(tmp_path / "a.npz", w=array)
    np.savez_compressed(tmp_path / "b.npz", w=array)
    stored = open_arrays(tmp_path / "a.npz")[0]["w"]
    assert isinstance(stored, StoredTensor) and stored.strides == (1, 2)
    assert isinstance(open_arrays(tmp_path / "b.npz")[0]["w"], CompressedArray)


def test_bfloat16_is_read_exactly(saved: Any) -> None:
    values = np.array([[1.0, -2.5], [0.0, 3.0517578125e-05]], np.float32)
    bits = (values.view(np.uint32) >> 16).astype("<u2").view("V2")
    found = open_arrays(saved(w=bits))[0]["w"]
    assert found.dtype == "bfloat16" and (found.read() == values).all()


def test_a_single_array_has_the_name_of_its_file(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.save(tmp_path / "w.npy", array)
    found, _ = open_arrays(tmp_path / "w.npy")
    assert list(found) == ["w"] and (found["w"].read() == array).all()


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_arrays_without_numbers_are_reported_and_the_rest_is_read(
    saved: Any, tmp_path: Path
) -> None:
    path = saved(
        w=np.ones((2, 2)),
        bomb=np.array([Bomb(tmp_path / "ran"), None], dtype=object),
        words=np.array(["a", "b"]),
        big=np.ones((2, 2), ">f4"),
        record=np.zeros(2, [("a", "f4")]),
    )
    found, skips = open_arrays(path)
    assert list(found) == ["w"] and (found["w"].read() == 1).all()
    assert {skip.tensor for skip in skips} == {"bomb", "words", "big", "record"}
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, np.bool_, np.complex64])
def test_numbers_that_are_not_weights_are_refused_when_read(saved: Any, dtype: type) -> None:
    found = open_arrays(saved(w=np.zeros((2, 2), dtype)))[0]["w"]
    with pytest.raises(RankscopeError, match="'w': is stored as"):
        found.read()


def npy(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode() + data


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}\n"
DAMAGED = {
    "cut": npy(GOOD, bytes(7)),
    "rest": npy(GOOD, bytes(9)),
    "shape that overflows": npy(GOOD.replace("(2,)", "(2**40, 2**40)"), bytes(8)),
    "shape beyond memory": npy(GOOD.replace("(2,)", f"({2**40}, {2**40})"), bytes(8)),
    "negative shape": npy(GOOD.replace("(2,)", "(-1, -2)"), bytes(8)),
    "shape that is none": npy(GOOD.replace("(2,)", "2"), bytes(8)),
    "an axis too many": npy(GOOD.replace("(2,)", f"({'1, ' * 64}2)"), bytes(8)),
    "shape of many digits": npy(GOOD.replace("(2,)", f"({'9' * 4000}, {'9' * 4000})"), bytes(8)),
    "code": npy(GOOD.replace("(2,)", "__import__('os').mkdir('ran')"), bytes(8)),
    "nested": npy("(" * 5000, bytes(8)),
    "no dict": npy("[1, 2]", bytes(8)),
    "length that lies": b"\x93NUMPY\2\0\xff\xff\xff\xff{}",
    "version that is none": b"\x93NUMPY\7\0" + bytes(16),
    "mark alone": b"\x93NUMPY",
    "other": b"hello",
    "empty": b"",
}


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("method", [None, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_array_is_one_error(name: str, method: int | None, tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    if method is None:
        path.write_bytes(DAMAGED[name])
    else:
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("w.npy", DAMAGED[name])
    with pytest.raises(RankscopeError) as caught:
        open_arrays(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def small_archive(name: str) -> bytes:
    written = io.BytesIO()
    SAVERS[name](written, a=np.arange(400.0).reshape(20, 20), b=np.ones(3, np.float16))
    return written.getvalue()


SMALL = {name: small_archive(name) for name in SAVERS}


@pytest.mark.parametrize("name", SAVERS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_changed_or_cut_archive_is_read_or_refused(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(SMALL[name])
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "f.npz"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        for tensor in open_arrays(path)[0].values():
            tensor.read()
    except RankscopeError as error:
        assert "\n" not in str(error)


def test_compressed_data_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    np.savez_compressed(path, w=np.random.default_rng(0).normal(size=(50, 50)))
    content = bytearray(path.read_bytes())
    found = open_arrays(path)[0]["w"]
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(RankscopeError, match="'w': its compressed data is damaged"):
        found.read()
    path.unlink()
    with pytest.raises(RankscopeError, match="No such file"):
        found.read()


@pytest.mark.parametrize("name", SAVERS)
def test_opening_reads_little_of_a_large_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).normal(size=(128, 512))
    SAVERS[name](tmp_path / "f.npz", **{f"w{i}": noise + i for i in range(8)})
    size, read = (tmp_path / "f.npz").stat().st_size, 0
    readinto = zip_file.FilePart.readinto

    def counted(part: zip_file.FilePart, buffer: Any) -> int:
        nonlocal read
        count = readinto(part, buffer)
        read += count
        return count

    monkeypatch.setattr(zip_file.FilePart, "readinto", counted)
    assert len(open_arrays(tmp_path / "f.npz")[0]) == 8
    assert read < 200_000 < size


LLAMA = {
    "model.layers.0.self_attn.q_proj.weight": np.arange(16, dtype=np.float32).reshape(4, 4),
    "lm_head.weight": np.eye(4, dtype=np.float32),
}


def test_a_series_of_archives_is_a_run(tmp_path: Path) -> None:
    for step in (10, 200):
        np.savez(tmp_path / f"step_{step}.npz", **LLAMA)
    (tmp_path / "config.json").write_text('{"n_head": 2, "n_embd": 4}')
    run = open_run(tmp_path)
    assert run.steps == (10, 200) and {one.layout for one in run} == {"numpy"}
    contents = run[200].contents
    assert contents.heads is not None and contents.heads.count == 2
    for name, array in LLAMA.items():
        tensor = contents.parameters[name].tensor
        assert tensor is not None and (tensor.read() == array).all()


def test_a_series_of_safetensors_files_is_a_run(tmp_path: Path) -> None:
    for step in (10, 200):
        save_file(LLAMA, tmp_path / f"step_{step}.safetensors")
    for name in ("adapter_model", "gradients", "optimizer", "model-00001-of-00002"):
        save_file(LLAMA, tmp_path / f"{name}.safetensors")
        assert layout_of(tmp_path / f"{name}.safetensors") is None
    (tmp_path / "broken.safetensors").write_bytes(bytes(20))
    run = open_run(tmp_path)
    assert run.steps == (10, 200) and {one.layout for one in run} == {"safetensors"}
    assert set(run[10].contents.parameters) == set(LLAMA)


def test_files_of_merges_and_adapters_are_not_checkpoints(tmp_path: Path) -> None:
    for folder in ("merges", "adapter"):
        (tmp_path / folder).mkdir()
        save_file(LLAMA, tmp_path / folder / "step-00000010.safetensors")
        assert layout_of(tmp_path / folder / "step-00000010.safetensors") is None
