"""What a worker hands over is what store and table would have been made of here."""

import csv
import io
import json
import math
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from rankscope.results.columns import COLUMNS, TEXT, WHOLE
from rankscope.results.csv_tables import as_csv
from rankscope.results.measure import measure
from rankscope.results.measured import Measured
from rankscope.results.spectra_store import Entry, read_entries, write_entries
from rankscope.results.step_rows import StepRows, row_of
from rankscope.results.typed_columns import Columns, packed
from rankscope.spectra.matrices import LowRank
from rankscope.spectra.singular_values import spectrum
from rankscope.spectra.spectrum import Cosine, Norm, Sparsity, Spectrum, no_spectrum

NAMES = ("w", "a,b", 'say "x"', "=1+1", "line\nend", "", "ü\ud800")


@pytest.fixture
def found(rng: np.random.Generator) -> list[Spectrum]:
    """A spectrum of every kind."""
    plain = spectrum(rng.normal(size=(9, 6)).astype(np.float32))
    steep = spectrum(np.vander(np.linspace(0, 1, 12)))
    changed = replace(plain, before=Norm(3.0, 1e-9), cosine=Cosine(0.25, 1e-12, None))
    return [
        replace(plain, entries=Sparsity(0.5, None), before=Norm(2.0, 0.0)),
        steep,
        changed,
        replace(changed, cosine=Cosine(-1.0, 0.0, 0.125), is_scaled=False),
        spectrum(LowRank(rng.normal(size=(9, 2)), rng.normal(size=(2, 6)))),
        spectrum(np.zeros((3, 4))),
        no_spectrum((0, 0), "float16", "skipped:unreadable"),
    ]


def entries_of(found: list[Spectrum], *, sealed: bool) -> list[Entry]:
    kinds = ["weight", "weight", "update", "update", "adapter", "weight", "weight"]
    place = {"layer": None, "role": "q", "head": None, "expert": 3, "since": 5, "restarts": None}
    return [
        Entry(
            f"key{at}",
            {**place, "component": kind, "name": name, "window": ""},
            Measured.of(one, kind) if sealed else one,
        )
        for at, (one, kind, name) in enumerate(zip(found, kinds, NAMES, strict=True))
    ]


def naive_rows(entries: list[Entry]) -> list[dict[str, object]]:
    """Rows from the spectra alone."""
    return [
        {"run": "=r", "step": 7, **entry.place}
        | {"rows": entry.spectrum.shape[0], "cols": entry.spectrum.shape[1]}
        | {"dtype": entry.spectrum.dtype, "status": entry.spectrum.status}
        | measure(entry.spectrum, whole=entry.place["component"] == "weight")
        for entry in entries
    ]


def test_rows_are_the_bytes_that_rows_of_python_objects_give(found: list[Spectrum]) -> None:
    rows = naive_rows(entries_of(found, sealed=False))
    made = StepRows.of_entries("=r", 7, entries_of(found, sealed=True), {"a": 1})
    expected = packed(Columns.of(rows, COLUMNS, whole=WHOLE, text=TEXT))
    assert zlib.decompress(made.cells) == expected
    assert made.csv == as_csv(rows, COLUMNS, heading=False)
    assert (made.count, made.measured, made.about) == (7, 6, {"a": 1})
    other = StepRows.of_entries("=r", 7, entries_of(found, sealed=False), {"a": 1})
    assert other == made == StepRows.of(rows, {"a": 1})


def test_lines_are_read_back_by_another_reader(found: list[Spectrum]) -> None:
    made = StepRows.of_entries("r", 7, entries_of(found, sealed=True), {})
    lines = list(csv.reader(io.StringIO(made.csv.decode(), newline="")))
    assert [len(line) for line in lines] == [len(COLUMNS)] * len(found)
    at = COLUMNS.index("name")
    assert [line[at] for line in lines][:5] == [*NAMES[:3], "'=1+1", "line\nend"]
    first = dict(zip(COLUMNS, lines[0], strict=True))
    s = found[0].values
    assert float(first["spectral_norm"]) == s[0]
    assert float(first["stable_rank"]) == pytest.approx((s**2).sum() / s[0] ** 2, rel=1e-14)


def test_a_row_has_the_cells_and_their_types(found: list[Spectrum]) -> None:
    entries = entries_of(found, sealed=True)
    for entry, expected in zip(entries, naive_rows(entries), strict=True):
        row = row_of("=r", 7, entry)
        plain = {n: float(v) if isinstance(v, float) else v for n, v in expected.items()}
        assert {*row} == {*COLUMNS}
        assert repr(row) == repr({name: plain[name] for name in row})


def test_a_spectrum_comes_back_bit_by_bit(found: list[Spectrum]) -> None:
    for one in found:
        back = Measured.of(one, "weight").spectrum
        assert back.values.tobytes() == one.values.tobytes()
        assert repr(back.bounds) == repr(one.bounds)
        known = [replace(each, values=np.empty(0), bounds=one.bounds) for each in (back, one)]
        if math.isnan(one.noise_floor):
            known = [replace(each, noise_floor=0.0) for each in known]
        assert repr(known[0]) == repr(known[1])


def test_the_store_has_the_bytes_of_its_description(tmp_path: Path, found: list[Spectrum]) -> None:
    for name in ("sealed", "spectra"):
        write_entries(tmp_path / name, entries_of(found, sealed=name == "sealed")[::-1])
    assert (tmp_path / "sealed").read_bytes() == (tmp_path / "spectra").read_bytes()
    with safe_open(tmp_path / "sealed", framework="np") as file:
        text = file.metadata()["rankscope"]
    about = json.loads(text)["about"]
    assert json.dumps(about, separators=(",", ":")) in text
    back = {entry.key: entry for entry in read_entries(tmp_path / "sealed")}
    for at, (one, sealed) in enumerate(zip(found, entries_of(found, sealed=True), strict=True)):
        assert sealed.has_cosine == (one.cosine is not None)
        assert back[f"key{at}"].place["name"] == NAMES[at]
        assert back[f"key{at}"].spectrum.values.tobytes() == one.values.tobytes()
        assert back[f"key{at}"].has_cosine == (one.cosine is not None)
