from __future__ import annotations

import contextlib
import importlib
import io
import json
import shutil
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import rankscope as rs
from benchmarks import bench, floor, peers, study_baseline, vectors
from benchmarks.comparisons import against_peers
from benchmarks.make_checkpoints import TINY, rounded, write_adapters, write_run
from benchmarks.many_rows import write_many_rows
from benchmarks.memory import Measured, measure
from benchmarks.programs import Program
from benchmarks.report import Row, Spread
from benchmarks.rounds import Bench, ratio
from rankscope.analysis.local_workers import LocalWorkers
from rankscope.cli.app import app
from rankscope.spectra.matrices import Dense
from rankscope.spectra.nulls import Nulls
from rankscope.spectra.subspace_measures import Change
from tests.analysis.series import Inline

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

ALLOCATE = "import time; held = bytearray({size}); time.sleep(0.3)"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_floor_and_analysis_read_the_same_matrices(tmp_path: Path, dtype: str) -> None:
    write_run(tmp_path / "run", TINY, dtype=dtype, count=2)
    table = rs.analyze(tmp_path / "run", components=["weight"], jobs=1)
    squares = {
        (stored[0].parent.name, stored[3]): floor.squares(stored)
        for stored in floor.iter_matrices(tmp_path / "run")
    }
    assert len(squares) == len(table) == 2 * len(TINY.modules)
    norms = sorted(float(np.sqrt(values.max())) for values in squares.values())
    np.testing.assert_allclose(sorted(table["spectral_norm"]), norms, rtol=1e-10)


def test_metrics_of_the_study_are_those_of_the_table(tmp_path: Path) -> None:
    write_run(tmp_path / "run", TINY, dtype="float32", count=1)
    table = rs.analyze(tmp_path / "run", components=["weight"], jobs=1)
    matrices = [
        floor.read(stored).astype(np.float32) for stored in floor.iter_matrices(tmp_path / "run")
    ]
    per = [study_baseline.proportional_effective_rank(matrix) for matrix in matrices]
    kappa = [study_baseline.condition_number(matrix) for matrix in matrices]
    np.testing.assert_allclose(sorted(table["per"]), sorted(per), rtol=1e-4)
    np.testing.assert_allclose(sorted(table["condition_number"]), sorted(kappa), rtol=1e-2)


def test_checkpoints_are_written_once_and_alike(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_run(tmp_path / name, TINY, dtype="bfloat16", count=2)
    one, two = (sorted((tmp_path / name).rglob("*.safetensors")) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    before = one[0].stat().st_mtime_ns
    write_run(tmp_path / "one", TINY, dtype="bfloat16", count=2)
    assert one[0].stat().st_mtime_ns == before


def test_adapters_have_one_pair_per_projection(tmp_path: Path) -> None:
    write_adapters(tmp_path / "adapters", TINY)
    table = rs.analyze(tmp_path / "adapters", jobs=1)
    assert set(table["component"]) == {"adapter"}
    assert len(table) == len(TINY.modules)
    assert set(table["max_rank"]) == {TINY.rank}


def test_comparisons_have_the_nulls_that_they_are_called_after(tmp_path: Path) -> None:
    write_run(tmp_path / "run", TINY, dtype="float32", count=2)
    (pair,) = vectors.read_pairs(tmp_path / "run", 1)
    for earlier, is_simulated in ((pair.close, False), (pair.before, True)):
        assert earlier.basis is not None and isinstance(earlier.matrix, Dense)
        change = Change.between(pair.matrix, earlier.matrix)
        nulls = Nulls(earlier.basis, change.norm, (4,), ("w",))
        nulls.least_cosine("left", 4)
        nulls.intruders(10)
        assert ("_simulated" in vars(nulls)) == is_simulated


def test_many_rows_are_those_of_a_few_at_other_steps_and_of_other_experts(tmp_path: Path) -> None:
    write_run(tmp_path / "run", TINY, dtype="float32", count=2)
    few, many = tmp_path / "few", tmp_path / "many"
    source = rs.analyze(tmp_path / "run", out=few, components=["weight", "update"], jobs=1)
    count = write_many_rows(few, many, rows=5 * len(source), steps=4)
    results = rs.open_results(many)
    table = results.metrics
    assert count == len(table) >= 5 * len(source)
    assert len(results.distinct(["step"])) == 4 and len(results.distinct(["expert"])) > 1
    rounds = table["step"] // (2 * (source["step"].max() - source["step"].min()))
    names = table["name"].str.partition(".experts.")[0]
    original = source.set_index(["component", "name", "step"])
    first = table.assign(name=names)[rounds == 0].set_index(["component", "name", "step"])
    for column in ("per", "condition_number_r", "stable_rank", "rows"):
        expected = original[column].reindex(first.index).astype(float)
        np.testing.assert_allclose(first[column].astype(float), expected, rtol=0.01)
    drawn = results.spectra("update")
    assert drawn.groupby(["step", "name"]).ngroups == 2 * first.xs("update")["per"].count()


def test_rounding_is_to_the_nearest_bfloat16(rng: np.random.Generator) -> None:
    values = rng.normal(size=1000).astype(np.float32)
    stored = (rounded(values).astype(np.uint32) << 16).view(np.float32)
    ulp = 2.0 ** (np.floor(np.log2(np.abs(values))) - 7)
    assert (np.abs(stored - values) <= ulp / 2).all()


@pytest.mark.slow
def test_memory_counts_every_process_of_the_tree() -> None:
    size = 40_000_000
    child = ALLOCATE.format(size=size)
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    alone, tree = (
        measure(python(program), watch_memory=True)
        for program in ("import time; time.sleep(0.3)", code)
    )
    assert alone.pss is not None and tree.pss is not None
    assert tree.pss > alone.pss + 0.9 * size / 1e6


def test_processor_time_includes_children() -> None:
    loop = "sum(range(10**7))"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {loop!r}], check=True)"
    assert measure(python(code)).processor > 0.5 * measure(python(loop)).processor


def test_a_failing_command_is_an_error_with_its_stderr() -> None:
    with pytest.raises(RuntimeError, match="ended with 3: so it is"):
        measure(python("import sys; sys.stderr.write('so it is'); sys.exit(3)"))


def test_a_ratio_compares_neighbouring_runs() -> None:
    quick = measure(python("pass"))
    turns = {"a": [quick, quick], "b": [quick, quick]}
    assert ratio(turns, "a", "b") == Spread(1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (Row("", Spread(1.2, 1.0, 9.0), "×", at_most=1.25), True),
        (Row("", Spread(1.3, 1.0, 9.0), "×", at_most=1.25), False),
        (Row("", Spread(15.0, 1.0, 20.0), "×", at_least=15.0), True),
        (Row("", Spread(14.9, 1.0, 20.0), "×", at_least=15.0), False),
        (Row("", Spread(1.0, 1.0, 1.0), "×"), None),
    ],
)
def test_median_decides_whether_a_limit_is_met(row: Row, met: bool | None) -> None:
    assert row.met is met


# Ratios mean nothing at toy size; that there is a figure for each thing, and laws, do.
ROWS = {"adapters": 3, "layers": 4, "many": 3, "large": 4}


@pytest.fixture
def toy(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """The rows of some parts, from the JSON; it is small."""

    def rows_of(*parts: str) -> list[dict[str, Any]]:
        few = ["--tiny", "--scratch", str(tmp_path), "--rounds", "1", "--slow-rounds", "1"]
        bench.main([*few, "--only", *parts])
        stored = json.loads((tmp_path / "results.json").read_text())
        assert stored["machine"]["versions"]["rankscope"]
        assert not stored["not_measured"]
        return list(stored["rows"])

    return rows_of


@pytest.mark.slow
@pytest.mark.parametrize("part", list(ROWS))
def test_a_part_of_a_toy_model_fills_table_and_json(
    toy: Callable[[str], list[dict[str, Any]]], capsys: pytest.CaptureFixture[str], part: str
) -> None:
    rows = toy(part)
    shown = capsys.readouterr().out
    assert len(rows) == ROWS[part]
    assert all(row["what"] in shown and row["value"]["lowest"] > 0 for row in rows)


@pytest.mark.slow
def test_bytes_that_a_run_elsewhere_takes_are_counted(
    toy: Callable[[str], list[dict[str, Any]]], tmp_path: Path
) -> None:
    time, fetched = toy("elsewhere")
    assert time["value"]["median"] > 0.5
    asked = sum(
        2 * shape[0] * shape[1] for _, _, shape, _ in floor.iter_matrices(tmp_path / "bfloat16")
    )
    # At toy size a first read, of 16 KiB, holds most of a file: the law itself is tested elsewhere.
    read = fetched["value"]["median"] * asked / TINY.layers
    assert asked / TINY.layers <= read <= 2 * (2**14 + asked)


@pytest.mark.slow
def test_what_a_monitor_is_said_to_take_is_a_share(
    toy: Callable[[str], list[dict[str, Any]]],
) -> None:
    pytest.importorskip("torch")
    share, slower = toy("monitor")
    assert 0 < share["value"]["median"] < 100 and share["unit"] == "%"
    assert slower["value"]["median"] > 0


@cache
def in_process(name: str, command: tuple[str, ...], fresh: Path | None) -> Measured:
    """A program of the benchmark run here, where starting it costs nothing; each of them once."""
    if fresh is not None:
        shutil.rmtree(fresh, ignore_errors=True)
    start, shown = time.perf_counter(), io.StringIO()
    _, *words = command
    if words[0] == "-m":
        module = importlib.import_module(words[1])
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
            patch.setattr(sys, "argv", words[1:])
            module.main()
    else:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        shown.write(result.output)
    taken = time.perf_counter() - start
    return Measured(taken, taken, 1.0, 1.0, 1.0, shown.getvalue())


@pytest.mark.slow
def test_the_other_parts_run_at_toy_size(
    toy: Callable[..., list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(LocalWorkers, "run", Inline.run)
    monkeypatch.setattr(LocalWorkers, "start", lambda _: None)

    def measured(program: Program, *, watch_memory: bool = False) -> Measured:
        return in_process(program.name, tuple(program.command), program.fresh)

    monkeypatch.setattr(Program, "measured", measured)
    rows = toy("floor", "everything", "vectors", "experts", "growth")
    assert len(rows) == 2 * 4 + 2 * 2 + 5 + 4 + 2
    differences = [row for row in rows if row["what"].startswith("one more")]  # may be below 0
    assert all(row["value"]["lowest"] > 0 for row in rows if row not in differences)
    assert sum("nothing new" in row["what"] for row in rows) == 2 + 2 + 1
    counts = {
        name: json.loads((tmp_path / "results" / name / "analysis.json").read_text())["rows"]
        for name in ("float32", "bfloat16", "experts", "long")
    }
    modules = len(TINY.modules)
    assert counts == {
        "float32": 2 * modules,
        "bfloat16": 2 * modules,
        "experts": 17,
        "long": 8 * modules,
    }


@pytest.mark.parametrize(
    ("interpreter", "why"),
    [("failing", "cannot be installed: no index"), ("absent", "cannot be installed: [Errno 2]")],
)
def test_a_competitor_that_cannot_be_installed_is_named(
    tmp_path: Path, interpreter: str, why: str
) -> None:
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\necho no index >&2\nexit 1\n")
    failing.chmod(0o700)
    session = Bench(tmp_path, TINY, 1, 1, 1, (2, 4, 8))
    against_peers(session, str(tmp_path / interpreter))
    assert [line.partition(": ")[0] for line in session.missing] == [*peers.WANTS]
    assert all(why in line for line in session.missing)
    assert not session.rows


def test_a_competitor_needs_an_interpreter_that_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "_is_as_new", lambda *_: False)
    monkeypatch.setattr(sys, "version_info", (3, 11, 0))
    peer = peers.installed("diffract-core", tmp_path)
    assert peer.python is None
    assert peer.problem == "needs Python 3.12: give one with --peer-python"


def test_every_part_has_a_name_in_the_readme() -> None:
    text = (Path(bench.__file__).parent / "README.md").read_text()
    assert all(f"`{part}`" in text for part in bench.PARTS)
