"""A file where a folder of results is to be is a wrong setting at every door; nothing is done."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

import rankscope as rs
from rankscope.dry_run.report import iter_dry_run
from rankscope.errors import WrongSettingError
from rankscope.training.config_file import config_from
from rankscope.training.data.prepare import prepare_tokens

RUN, FILE = Path("ckpts/full"), Path("file")
SETTINGS = {"model.vocab_size": 257, "out": str(FILE)}
DOORS: dict[str, Callable[[Path], object]] = {
    "analyze": lambda out: rs.analyze(RUN, out=out),
    "shard": lambda out: rs.analyze(RUN, out=out, shard="1/2"),
    "evaluate": lambda out: rs.evaluate(RUN, text="text.txt", out=out),
    "represent": lambda out: rs.represent(RUN, text="text.txt", out=out),
    "watch": lambda out: rs.watch(RUN, out=out),
    "monitor": lambda out: rs.Monitor(torch.nn.Linear(3, 3), out, every=1),
    "report": lambda out: rs.write_report(rs.Results(Path()), out / "report.html"),
    "figure": lambda out: rs.plots.save_figure(plt.figure(), out, "name"),
    "data": lambda out: prepare_tokens(["text.txt"], out / "data"),
    "dry run": lambda out: list(iter_dry_run(config_from(SETTINGS), timing_seconds=0.0)),
}


@pytest.mark.parametrize("below", ["", "in/it"])
@pytest.mark.parametrize("door", DOORS)
def test_a_file_in_the_way_is_named(
    door: str, below: str, full_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(full_run.parent.parent)
    FILE.write_bytes(b"mine")
    Path("text.txt").write_text("It was a bright cold day in April.")
    with pytest.raises(WrongSettingError, match=r"^file: is a file: `\w+` must be a folder$"):
        DOORS[door](FILE / below)
    assert FILE.read_bytes() == b"mine"
