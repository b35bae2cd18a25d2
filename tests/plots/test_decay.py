from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope import plots
from rankscope.errors import RankscopeError


def panels(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.get_title()]


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_spectra_begin_at_one_and_name_their_band(results: Any) -> None:
    ax = plots.spectrum(results.spectra("update", step=200, role="down"))
    assert (ax.get_yscale(), ax.get_xlabel()) == ("log", "index i")
    first = [np.asarray(line.get_ydata())[0] for line in ax.lines if len(line.get_xdata()) > 3]
    assert [y for y in first if np.isfinite(y)] == pytest.approx([1.0, 1.0])
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert {"median over layers", "min to max over layers", "noise floor"} <= set(texts)


def test_one_spectrum_shows_the_interval_of_the_truth(results: Any) -> None:
    rows = results.spectra("update", run="full", step=200, layer=0, role="down")
    wide = rows.assign(lower=rows["singular_value"] * 0.5)
    for spectra, is_shown in ((rows, False), (wide, True)):
        ax = plots.spectrum(spectra, ax=plt.figure().add_subplot())
        texts = [text.get_text() for text in ax.get_legend().get_texts()]
        assert ("interval of the true value" in texts) is is_shown


def test_zeros_are_left_out_of_a_spectrum(results: Any) -> None:
    rows = results.spectra("update", run="full", step=200, layer=0, role="down")
    rows = rows.assign(singular_value=rows["singular_value"].where(rows["index"] < 10, 0.0))
    lines = [line for line in plots.spectrum(rows).lines if len(line.get_xdata()) > 3]
    assert {len(line.get_xdata()) for line in lines} == {10}


def test_a_zero_spectrum_is_refused(results: Any) -> None:
    with pytest.raises(RankscopeError, match="no singular value is positive"):
        plots.spectrum(results.spectra("update", run="relora", step=500))
    with pytest.raises(RankscopeError, match="no spectra"):
        plots.spectrum(results.spectra("update", step=5))


@pytest.mark.slow
def test_update_spectra_show_an_early_a_middle_and_a_late_step(results: Any) -> None:
    figure = plots.update_spectra(results)
    assert [ax.get_title() for ax in panels(figure)] == ["step 100", "step 600", "step 900"]
    assert len(figure.axes) == 6


def test_below_the_noise_floor_a_line_is_pale_and_the_axis_does_not_follow_it(results: Any) -> None:
    rows = results.spectra("update", run="full", step=200, layer=0, role="down")
    largest = rows["singular_value"].max()
    s = np.where(rows["index"] < 4, rows["singular_value"], 1e-8 * largest)
    rows = rows.assign(singular_value=s, lower=s, upper=s, noise_floor=1e-7 * largest)
    ax = plots.spectrum(rows)
    bright, pale = [line for line in ax.lines if len(line.get_xdata()) > 3]
    assert np.isfinite(bright.get_ydata()).sum() == 4
    assert pale.get_alpha() < 0.5 and np.isnan(pale.get_ydata()[:3]).all()
    assert ax.get_ylim()[0] > 1e-3
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "below the noise floor (may be rounding alone)" in texts
    assert "noise floor" not in texts  # it is not in the picture
    (dot,) = [line for line in ax.lines if [*line.get_xdata()] == [4]]
    assert dot.get_marker() == "o"


def test_titles_count_what_the_steps_count(results: Any) -> None:
    results.metrics.attrs["unit"] = "epoch"
    try:
        figure = plots.update_spectra(results)
    finally:
        del results.metrics.attrs["unit"]
    assert [ax.get_title() for ax in panels(figure)] == ["epoch 100", "epoch 600", "epoch 900"]


def test_spectra_of_runs_can_be_drawn_by_method(results: Any) -> None:
    results.metrics["method"] = "m"
    try:
        figure = plots.update_spectra(results, roles=["v"], hue="method")
    finally:
        del results.metrics["method"]
    assert legend_texts(figure)[:2] == ["m", "median over layers, then over 2 runs"]


def test_an_axis_that_panels_share_shows_the_least_value_of_any(results: Any) -> None:
    rows = results.spectra("update", run="full", step=200, layer=0, role="down")
    rows = rows.assign(noise_floor=0.0)
    steep = rows.assign(singular_value=rows["singular_value"] * 10.0 ** -rows["index"])
    shared = plt.figure().subplots(1, 2, sharey=True)
    for spectra, ax in zip((steep, rows), shared, strict=True):
        plots.spectrum(spectra, ax=ax)
    least = (steep["singular_value"] / steep["singular_value"].max()).min()
    assert shared[0].get_ylim()[0] < least
