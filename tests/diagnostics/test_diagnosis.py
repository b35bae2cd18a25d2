import importlib
import json
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rankscope import diagnostics
from rankscope.diagnostics.diagnose import diagnose
from rankscope.diagnostics.finding import SEVERITIES, Kind
from rankscope.errors import RankscopeError, WrongSettingError
from tests.conftest import TinyRun
from tests.diagnostics.surgery import adapter, edit, model
from tests.reliability.commands import finished_command as rankscope

PAGE = Path(__file__).parents[2] / "docs" / "diagnose.md"


def kinds() -> list[Kind]:
    """Every kind of finding in the package."""
    modules = [
        importlib.import_module(f"rankscope.diagnostics.{one.name}")
        for one in pkgutil.iter_modules(diagnostics.__path__)
    ]
    found = [value for module in modules for value in vars(module).values()]
    return list({one.code: one for one in found if isinstance(one, Kind)}.values())


@pytest.fixture
def faulty(relora_run: TinyRun) -> TinyRun:
    """A run with a dead adapter at the start and a step of the same weights as another."""
    edit(adapter(relora_run, 0), lambda name, value: 0 * value if "layers.0.mlp" in name else value)
    for part in (model, adapter):
        save_file(load_file(part(relora_run, 20)), part(relora_run, 30))
    return relora_run


def test_the_worst_findings_come_first(faulty: TinyRun) -> None:
    found = diagnose(faulty.path)
    severities = [SEVERITIES.index(one.severity) for one in found]
    assert severities == sorted(severities) and len(set(severities)) > 1
    assert found.worst == "error"


def test_a_diagnosis_is_a_sequence_and_a_table(faulty: TinyRun) -> None:
    found = diagnose(faulty.path)
    assert found[0] is found.findings[0] and list(found[:1]) == [found[0]]
    assert len(found.table) == len(found) == len(list(found))
    assert found.table["code"].tolist() == [one.code for one in found]


def test_findings_of_several_runs_name_their_run(faulty: TinyRun, full_run: Path) -> None:
    found = diagnose(faulty.path.parent)
    assert found.runs == ("full", "relora") and {one.run for one in found} == {"relora"}


@pytest.mark.slow
def test_results_of_other_runs_are_refused(
    relora_run: TinyRun, full_run: Path, tmp_path: Path
) -> None:
    import rankscope as rs

    rs.analyze(full_run, out=tmp_path / "out", jobs=1, roles="q", components="weight")
    with pytest.raises(WrongSettingError, match=r"`results` holds other runs: full"):
        diagnose(relora_run.path, results=tmp_path / "out")
    with pytest.raises(RankscopeError, match=r"holds none of metrics\.parquet"):
        diagnose(relora_run.path, results=tmp_path)


@pytest.mark.slow
def test_json_is_one_document_and_an_error_exits_with_1(faulty: TinyRun) -> None:
    done = rankscope("diagnose", faulty.path, "--json")
    assert done.returncode == 1 and done.stderr == ""
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1 and document["runs"] == ["relora"]
    counts = {s: sum(f["severity"] == s for f in document["findings"]) for s in SEVERITIES}
    assert document["counts"] == counts and counts["error"]
    assert set(document["findings"][0]) >= {"code", "run", "steps", "matrices", "numbers", "remedy"}


@pytest.mark.slow
def test_the_command_prints_what_it_means_and_what_to_do(
    faulty: TinyRun, full_run: Path, tmp_path: Path
) -> None:
    done = rankscope("diagnose", faulty.path)
    assert done.returncode == 1
    assert "error  adapter-dead  relora, step 0, model.layers.0.mlp.down_proj.weight" in done.stdout
    assert "→ Start each cycle with A random and B = 0" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 200
    assert "needs spectra: give --results" in done.stderr
    healthy = rankscope("diagnose", full_run)
    assert healthy.returncode == 0 and healthy.stdout == "nothing found in 1 run\n"
    assert rankscope("diagnose", tmp_path / "absent").returncode == 2
    (tmp_path / "empty").mkdir()
    assert rankscope("diagnose", tmp_path / "empty").returncode == 4


@pytest.mark.slow
def test_names_that_a_terminal_would_obey_are_printed_as_text(
    relora_run: TinyRun, rng: np.random.Generator
) -> None:
    path = relora_run.path.rename(relora_run.path.with_name("evil\x1b[2J"))
    run = TinyRun(path)
    edit(adapter(run, 0), lambda name, value: 0 * value)
    done = rankscope("diagnose", path)
    assert done.returncode == 1 and "\x1b[2J" not in done.stdout


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: str(kind.code))
def test_every_kind_is_on_the_page_and_says_what_to_do(kind: Kind) -> None:
    row = re.search(rf"^\| `{kind.code}` \| {kind.severity}", PAGE.read_text(), re.MULTILINE)
    assert row, kind.code
    assert kind.meaning.endswith(".") and kind.remedy.endswith(".")
    assert len(kind.meaning) + len(kind.remedy) < 400


def test_the_page_has_no_other_kinds() -> None:
    listed = set(re.findall(r"^\| `([\w-]+)` \| (?:error|warning|note)", PAGE.read_text(), re.M))
    assert listed == {kind.code for kind in kinds()}
