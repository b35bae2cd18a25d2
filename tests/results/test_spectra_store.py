import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from rankscope.errors import RankscopeError
from rankscope.results.spectra_store import Entry, read_entries, store_path, write_entries
from rankscope.spectra.matrices import LowRank
from rankscope.spectra.singular_values import spectra, spectrum
from rankscope.spectra.spectrum import Norm

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
    by_key = {entry.key: entry for entry in written}
    assert len(read) == len(by_key) == len(written)
    for one, other in ((entry, by_key[entry.key]) for entry in read):
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
    with pytest.raises(RankscopeError, match="bad: is damaged"):
        read_entries(tmp_path / "bad")


@pytest.mark.parametrize("run", ["../../etc", "a/b", "a b", "", "..", "run\n", "ü"])
def test_no_name_of_a_run_leaves_the_folder(run: str) -> None:
    path = store_path(Path("store"), run, 5)
    assert path.parts[0] == "store" and len(path.parts) == 3 and ".." not in path.parts
    assert path != store_path(Path("store"), run + "x", 5)


def as_version_1(path: Path, found: list[Entry], *, version: str = "1") -> None:
    """Write a file as version 1 did: without a digest, bits and norms of what changed."""
    write_entries(path, found)
    with safe_open(path, framework="np") as file:
        listing = json.loads(file.metadata()["rankscope"])["about"]
        vectors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for one in listing["entries"]:
        for name in ADDED:
            one.pop(name, None)
    path.write_bytes(save(vectors, {"rankscope": json.dumps({"version": version, **listing})}))


@pytest.mark.parametrize(("version", "is_read"), [("1", True), ("99", False)])
def test_a_file_of_version_1_is_read_and_one_of_an_unknown_version_is_not(
    tmp_path: Path, rng: np.random.Generator, version: str, is_read: bool
) -> None:
    as_version_1(tmp_path / "step", entries(rng), version=version)
    read = read_entries(tmp_path / "step")
    assert len(read) == (len(entries(rng)) if is_read else 0)
    assert all(e.spectrum.significant_bits == 0 and e.spectrum.before is None for e in read)


@pytest.mark.parametrize("change", [-1, 1])
def test_counts_that_do_not_fit_are_damage(
    tmp_path: Path, rng: np.random.Generator, change: int
) -> None:
    path = tmp_path / "step"
    as_version_1(path, entries(rng))
    with safe_open(path, framework="np") as file:
        listing = json.loads(file.metadata()["rankscope"])
        vectors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    listing["entries"][0]["count"] += change
    path.write_bytes(save(vectors, {"rankscope": json.dumps(listing)}))
    with pytest.raises(RankscopeError, match=r"step: is damaged .its counts do not fit"):
        read_entries(path)


def test_the_order_in_which_spectra_arrive_changes_no_byte(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    found = entries(rng)
    places: list[dict[str, int | str | None]] = [
        {
            "layer": layer,
            "role": "q",
            "component": "weight",
            "head": head,
            "expert": None,
            "name": n,
        }
        for layer, head, n in (
            (None, None, "a"),
            (0, 10, "w"),
            (0, 9, "w"),
            (10, 1, "w"),
            (9, 1, "w"),
        )
    ]
    found += [replace(found[0], key="k", place=place) for place in places]
    write_entries(tmp_path / "one", found)
    expected = (tmp_path / "one").read_bytes()
    for _ in range(10):
        write_entries(tmp_path / "other", [found[i] for i in rng.permutation(len(found))])
        assert (tmp_path / "other").read_bytes() == expected
    layers = [entry.place["layer"] for entry in read_entries(tmp_path / "one")]
    assert layers[:4] == [0, 0, 9, 10] and set(layers[4:]) == {None}
