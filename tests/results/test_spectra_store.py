import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from rankscope.errors import RankscopeError
from rankscope.results.spectra_store import Entry, read_entries, store_path, write_entries
from rankscope.results.vectors import write_vectors
from rankscope.spectra.matrices import Dense, Kronecker, LowRank
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
        *spectra(Kronecker(*(Dense.stored(rng.normal(size=(2, 3))) for _ in range(2)))),
        spectrum(np.ldexp(rng.normal(size=(3, 2)), -1070)),
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


def test_an_absent_file_and_an_empty_one_hold_nothing(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("found", range(3), ids=["gram", "zero", "none"])
def test_intervals_that_follow_from_one_bound_are_not_stored(
    tmp_path: Path, found: int, rng: np.random.Generator
) -> None:
    write_entries(tmp_path / "step", entries(rng)[found : found + 1])
    with safe_open(tmp_path / "step", framework="np") as file:
        assert list(file.keys()) == ["values"]


def test_intervals_that_do_not_follow_are_stored_and_no_others(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    found = entries(rng)
    write_entries(tmp_path / "step", found)
    with safe_open(tmp_path / "step", framework="np") as file:
        lengths = {name: len(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    of_kronecker, subnormal = 4, 2
    assert lengths["lower"] == lengths["upper"] == of_kronecker + subnormal
    assert lengths["values"] == sum(entry.spectrum.max_rank for entry in found)


def as_older(path: Path, found: list[Entry], version: str) -> None:
    """Write a file as version 1 or 2 did: with three vectors; 1 without digest, bits and norms."""
    write_entries(path, found)
    with safe_open(path, framework="np") as file:
        about = json.loads(file.metadata()["rankscope"])["about"]
    by_key = {entry.key: entry.spectrum for entry in found}
    spectra = [by_key[one["key"]] for one in about["entries"]]
    vectors = {
        name: np.concatenate([getattr(one, name) for one in spectra])
        for name in ("values", "lower", "upper")
    }
    for one in about["entries"]:
        del one["within"]
        if version == "1":
            del one["significant_bits"], one["before"]
    if version == "2":
        write_vectors(path, vectors, about, version=version)
    else:
        path.write_bytes(save(vectors, {"rankscope": json.dumps({"version": version, **about})}))


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_file_of_an_older_version_is_read(
    tmp_path: Path, version: str, rng: np.random.Generator
) -> None:
    found = entries(rng)
    written = {entry.key: entry.spectrum for entry in found}
    as_older(tmp_path / "step", found, version)
    read = {entry.key: entry.spectrum for entry in read_entries(tmp_path / "step")}
    assert read.keys() == written.keys()
    for key, one in read.items():
        for name in ("values", "lower", "upper"):
            assert (getattr(one, name) == getattr(written[key], name)).all()
        known = (written[key].significant_bits, written[key].before)
        assert (one.significant_bits, one.before) == (known if version == "2" else (0, None))


def test_what_an_older_file_holds_is_written_again_as_it_was(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    as_older(tmp_path / "step", entries(rng), "2")
    old = read_entries(tmp_path / "step")
    write_entries(tmp_path / "new", old)
    for one, other in zip(old, read_entries(tmp_path / "new"), strict=True):
        assert (one.spectrum.lower == other.spectrum.lower).all()
        assert (one.spectrum.upper == other.spectrum.upper).all()


def test_a_file_of_an_unknown_version_is_not_read(tmp_path: Path, rng: np.random.Generator) -> None:
    as_older(tmp_path / "step", entries(rng), "99")
    assert read_entries(tmp_path / "step") == []


@pytest.mark.parametrize("change", [-1, 1])
def test_counts_that_do_not_fit_are_damage(
    tmp_path: Path, rng: np.random.Generator, change: int
) -> None:
    path = tmp_path / "step"
    as_older(path, entries(rng), "1")
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
