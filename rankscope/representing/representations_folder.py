"""Representations in the results folder: the two tables, and the record of their origin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.durable import write_file
from rankscope.errors import DAMAGE
from rankscope.pipeline.curves import CURVE, Curve, recorded_curve
from rankscope.representing.feature_tasks import Series, series_of
from rankscope.representing.represented import Representation, energy_series_in, series_in
from rankscope.results.columns import (
    INPUT_ENERGIES_CSV,
    INPUT_ENERGIES_FILE,
    REPRESENTATIONS_CSV,
    REPRESENTATIONS_FILE,
    REPRESENTATIONS_RECORD,
    REPRESENTATIONS_SKIPS,
    SIMILARITIES_CSV,
    SIMILARITIES_FILE,
)
from rankscope.results.csv_tables import frame_as_csv
from rankscope.results.record import (
    intact_record,
    json_lines,
    provenance,
    write_with_record,
)
from rankscope.results.representation_tables import (
    AGAINST,
    PLACE,
    WEIGHT,
    typed_input_energies,
    typed_representations,
    typed_similarities,
)

if TYPE_CHECKING:
    import pandas as pd

PACKAGES = ("rankscope", "numpy", "scipy", "safetensors", "tokenizers", "torch", "transformers")
ENERGIES = tuple(f"energy_{name}_centred" for name in ("share", "share_chance", "share_best"))
SHOWN = ("rankme", "rankme_gaussian", "dimensions", "mean_cosine", "alpha_req")


def write_results(out: Path, found: Representation) -> Representation:
    """Write the tables and the record; unchanged files stay untouched.

    The tables hold what this call found, and of earlier calls what it did not ask for: other runs,
    texts and kinds of places, and other steps with the same settings. Where nothing was found, only
    the reasons are written, and what earlier calls wrote stays.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    if not found.measured:
        write_file(out / REPRESENTATIONS_SKIPS, json_lines(map(vars, found.skips)))
        return found
    from rankscope.results.parquet_tables import frame_as_parquet

    curves = _earlier_curves(out)
    numbers = _merged(found.table, out / REPRESENTATIONS_FILE, found, curves)
    pairs = _merged(found.similarities, out / SIMILARITIES_FILE, found, curves)
    energies = _merged(
        found.input_energies, out / INPUT_ENERGIES_FILE, found, curves, series=energy_series_in
    )
    numbers = typed_representations(numbers).sort_values(list(PLACE), kind="stable")
    pairs = typed_similarities(pairs).sort_values([*PLACE, *AGAINST], kind="stable")
    energies = typed_input_energies(energies).sort_values(list(WEIGHT), kind="stable")
    files = {
        REPRESENTATIONS_FILE: frame_as_parquet(numbers),
        REPRESENTATIONS_CSV: frame_as_csv(numbers),
        SIMILARITIES_FILE: frame_as_parquet(pairs) if len(pairs) else None,
        SIMILARITIES_CSV: frame_as_csv(pairs) if len(pairs) else None,
        INPUT_ENERGIES_FILE: frame_as_parquet(energies) if len(energies) else None,
        INPUT_ENERGIES_CSV: frame_as_csv(energies) if len(energies) else None,
        REPRESENTATIONS_SKIPS: json_lines(map(vars, found.skips)),
    }
    there = {series for series, _ in (*series_in(numbers), *energy_series_in(energies))}
    known = {series_of(curve): curve for curve in (*curves, *found.curves)}
    listed = [known[series] for series in sorted(there)]
    write_with_record(
        out / REPRESENTATIONS_RECORD, _described(listed, found, numbers, energies), files
    )
    return found


def _merged(
    new: pd.DataFrame,
    path: Path,
    found: Representation,
    earlier: Sequence[Curve],
    *,
    series: Callable[[pd.DataFrame], list[tuple[Series, int]]] = series_in,
) -> pd.DataFrame:
    """The rows of this call, and those of the table as it was that still hold."""
    import pandas as pd

    if not (earlier and path.is_file()):
        return new
    own = {series_of(curve): curve for curve in found.curves}
    was = {series_of(curve): curve for curve in earlier}

    def holds(of: Series, step: int) -> bool:
        if of not in was:
            return False
        if of not in own:
            return True
        return own[of] == was[of] and step not in found.asked[of[0]]

    table = pd.read_parquet(path)
    kept = table[[holds(of, step) for of, step in series(table)]]
    return pd.concat([kept, new], ignore_index=True) if len(kept) else new


def _earlier_curves(out: Path) -> list[Curve]:
    """Curves of earlier calls; none where the record or a table is damaged."""
    try:
        listed = intact_record(out / REPRESENTATIONS_RECORD).get("representations", [])
        return [recorded_curve({name: one[name] for name in CURVE}) for one in listed]
    except DAMAGE:
        return []


def _described(
    curves: Sequence[Curve],
    found: Representation,
    numbers: pd.DataFrame,
    energies: pd.DataFrame,
) -> dict[str, Any]:
    """What was looked into, with which settings and versions, and the main results."""
    rows: dict[Series, list[dict[Any, Any]]] = {}
    for table, listed in ((numbers, series_in), (energies, energy_series_in)):
        records = table.astype(object).where(table.notna(), None).to_dict("records")
        for (series, _), row in zip(listed(table), records, strict=True):
            rows.setdefault(series, []).append(row)
    seconds: dict[Series, float] = {}
    for one in found.features:
        series = series_of(one.curve)
        seconds[series] = seconds.get(series, 0.0) + one.file.seconds
    return {
        "schema_version": 1,
        **provenance(PACKAGES),
        "key": found.key,
        "representations": [
            {
                **asdict(curve),
                **_described_rows(rows[series_of(curve)]),
                "seconds": round(seconds.get(series_of(curve), 0.0), 3),
            }
            for curve in curves
        ],
        "skipped": [vars(skip) for skip in found.skips],
        "notes": [vars(note) for note in found.notes],
    }


def _described_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The steps of one series, its probe, and the main numbers of its first and last step."""
    steps = sorted({row["step"] for row in rows})
    shown = _shown_energies if "role" in rows[-1] else _shown
    return {
        "steps": steps,
        "probe": {name: rows[-1][name] for name in ("tokens", "documents", "window", "probe")},
        "first": shown([row for row in rows if row["step"] == steps[0]]),
        "last": shown([row for row in rows if row["step"] == steps[-1]]),
    }


def _shown_energies(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over weights, by component and share of its energy."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["energy_share_centred"] is not None:
            found.setdefault(f"{row['component']} {row['weight_share']:.0%}", []).append(row)
    return {
        kind: {"weights": len(some)}
        | {
            name: sum(row[name] for row in some) / len(some)
            for name in ENERGIES
            if all(row[name] is not None for row in some)
        }
        for kind, some in found.items()
    }


def _shown(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The main numbers of the last block, or else of the last place."""
    blocks = [row for row in rows if row["at"] == "block"] or rows
    last = max(blocks, key=lambda row: (row["layer"], row["at"]))
    return {name: last[name] for name in ("layer", "at", *SHOWN)}
