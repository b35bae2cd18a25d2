from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rankscope import plots


@pytest.mark.slow
def test_a_saved_figure_is_the_same_bytes_each_time(table: pd.DataFrame, tmp_path: Path) -> None:
    written, one_role = [], table[table["role"] == "v"]
    for folder in (tmp_path / "a", tmp_path / "b"):
        with plots.paper_style():
            paths = plots.save_figure(plots.heatmaps(one_role), folder, "map")
        assert [path.name for path in paths] == ["map.pdf", "map.png"]
        assert sorted(path.name for path in folder.iterdir()) == ["map.pdf", "map.png"]
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1]
    assert not re.search(rb"CreationDate|/Producer|/Type3", written[0][0])


def test_a_figure_that_cannot_be_saved_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = Figure()
    old = plots.save_figure(figure, tmp_path, "f")[0].read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="No space"):
        plots.save_figure(figure, tmp_path, "f")
    assert (tmp_path / "f.pdf").read_bytes() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.pdf", "f.png"]


def test_a_figure_can_be_changed_and_saved_again(tmp_path: Path) -> None:
    with plots.paper_style("acl"):
        figure, ax = plt.subplots()
        engine = figure.get_layout_engine()
        first, again = (
            [path.read_bytes() for path in plots.save_figure(figure, tmp_path, "f")] for _ in "ab"
        )
        assert first == again and figure.get_layout_engine() is engine
        narrow = ax.get_position().x0
        ax.set_ylabel("a label\nof two lines")
        plots.save_figure(figure, tmp_path, "f")
        assert ax.get_position().x0 > narrow


def test_a_saved_figure_has_the_width_of_the_column(tmp_path: Path) -> None:
    with plots.paper_style("acl"):
        figure, _ = plt.subplots()
        (_, png) = plots.save_figure(figure, tmp_path, "f")
    assert plt.imread(png).shape[1] == round(3.03 * 300)
    assert mpl.rcParams["savefig.dpi"] == "figure"
