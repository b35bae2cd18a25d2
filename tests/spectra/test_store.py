import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from rankscope.errors import RankscopeError
from rankscope.spectra.matrices import LowRank
from rankscope.spectra.singular_values import spectra, spectrum
from rankscope.spectra.spectrum import Norm
from rankscope.spectra.store import Entry, read_entries, store_path, write_entries

ADDED = ("significant_bits", "before")  # by version 2


def entries(rng: np.random.Generator) -> list[Entry]:
    found = [
        spectrum(rng.normal(size=(4, 6))),
        spectrum(np.zeros((3, 3))),
        spectrum(np.full((2, 2), np.nan)),
        replace(spectrum(rng.normal(size=(5, 3))), before=Norm(3.5, 1e-9)),
        *spectra(LowRank(rng.normal(size=(2, 8, 3)), rng.normal(size=(2, 3, 8)))),
    ]
    place = {"layer": None, "role": "q", "component": "weight", "head": 1, "expert": None}
    return [Entry(f"key{i}", place | {"name": f"w{i}"}, one) for i, one in enumerate(found)]


def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path, rng: np.random.Generator) -> None:
    written = entries(rng)
    write_entries(tmp_path / "step.safetensors", written)
    read = read_entries(tmp_path / "step.safetensors")
    assert [entry.key for entry in read] == [entry.key for entry in written]
    for one, other in zip(read, written, strict=True):
        assert dict(one.place) == dict(other.place)
        for name in ("values", "lower", "upper"):
            assert (getattr(one.spectrum, name) == getattr(other.spectrum, name)).all()
        for name in ("shape", "dtype", "noise_source", "route", "status", *ADDED):
            assert getattr(one.spectrum, name) == getattr(other.spectrum, name)


def test_an_absent_file_holds_nothing_and_an_empty_list_can_be_written(tmp_path: Path) -> None:
    assert read_entries(tmp_path / "none") == []
    write_entries(tmp_path / "empty", [])
    assert read_entries(tmp_path / "empty") == []


@pytest.mark.parametrize("content", [b"", b"12345678rubbish", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(RankscopeError, match="bad: not a readable spectra file"):
        read_entries(tmp_path / "bad")


@pytest.mark.parametrize("run", ["../../etc", "a/b", "a b", "", "..", "run\n", "ü"])
def test_no_name_of_a_run_leaves_the_folder(run: str) -> None:
    path = store_path(Path("store"), run, 5)
    assert path.parts[0] == "store" and len(path.parts) == 3 and ".." not in path.parts
    assert path != store_path(Path("store"), run + "x", 5)


def test_a_file_of_version_1_is_read_and_one_of_a_later_version_is_not(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "step"
    write_entries(path, entries(rng))
    for version, count in (("1", len(entries(rng))), ("99", 0)):
        with safe_open(path, framework="np") as file:
            listing = json.loads(file.metadata()["rankscope"])
            vectors = {name: file.get_tensor(name) for name in ("values", "lower", "upper")}
        listing["version"] = version
        for one in listing["entries"]:
            for name in ADDED:
                one.pop(name, None)
        (tmp_path / version).write_bytes(save(vectors, {"rankscope": json.dumps(listing)}))
        read = read_entries(tmp_path / version)
        assert len(read) == count
        assert all(e.spectrum.significant_bits == 0 and e.spectrum.before is None for e in read)
