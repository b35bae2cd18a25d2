from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from rankscope.errors import WrongSettingError
from rankscope.plots.label_texts import (
    TITLE_CHARACTER,
    legend_names,
    name_title,
    name_titles,
    wrapped,
)
from rankscope.plots.panel import Panel, entries
from rankscope.plots.style import WIDTHS, in_legend, paper_style, series_styles, width_in_inches
from rankscope.statistics.markup import literal


def test_paper_style_sets_the_width_and_puts_everything_back() -> None:
    before = mpl.rcParams.copy()
    with paper_style("icml"):
        assert mpl.rcParams["figure.figsize"][0] == WIDTHS["icml"]
        assert mpl.rcParams["pdf.fonttype"] == mpl.rcParams["ps.fonttype"] == 42
        assert not mpl.rcParams["text.usetex"]
    assert mpl.rcParams == before


def test_paper_style_puts_everything_back_after_an_error() -> None:
    before = mpl.rcParams.copy()
    with pytest.raises(ZeroDivisionError), paper_style():
        1 / 0  # noqa: B018
    assert mpl.rcParams == before


def test_paper_style_leaves_what_a_backend_sets_meanwhile() -> None:
    with mpl.rc_context({"interactive": False}):
        with paper_style():
            mpl.rcParams["interactive"] = True
        assert mpl.is_interactive()


@pytest.mark.parametrize(("width", "inches"), [("acl", 3.03), ("4.5", 4.5), (2, 2.0)])
def test_a_width_is_a_venue_or_a_number_of_inches(width: str | float, inches: float) -> None:
    assert width_in_inches(width) == inches


@pytest.mark.parametrize("width", ["aclx", "", 0, -3, "inf", "nan", 1e9])
def test_an_impossible_width_is_refused(width: str | float) -> None:
    with pytest.raises(WrongSettingError, match=r"width|venue"), paper_style(width):
        pass


def test_styles_do_not_depend_on_the_order_or_number_of_rows() -> None:
    assert series_styles(["b", "a", "b", "c"]) == series_styles(["c", "b", "a"])


def test_layers_are_styled_in_numerical_order() -> None:
    assert list(series_styles([10, 2, 1])) == [1, 2, 10]


def test_many_series_all_look_different() -> None:
    assert len(set(series_styles(range(84)).values())) == 84


def test_many_layers_are_shades_of_which_a_legend_names_a_few() -> None:
    styles = series_styles(range(48))
    shades = [mpl.colors.to_rgb(style.color) for style in styles.values()]
    brightness = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in shades]
    assert brightness == sorted(brightness, reverse=True)
    assert in_legend(range(48)) == [0, 8, 16, 24, 31, 39, 47]
    assert [*in_legend("abcdefghijklmnop")] == [*"abcdefghijklmnop"]
    ax = plt.figure().add_subplot()
    panel = Panel(ax, styles)
    for layer in range(48):
        panel.series(layer)
    assert entries([ax])[1] == ["0", "8", "16", "24", "31", "39", "47"]


def test_the_first_runs_differ_in_colour_marker_and_line() -> None:
    styles = list(series_styles("abcd").values())
    for part in ("color", "marker", "dashes"):
        assert len({str(getattr(style, part)) for style in styles}) == 4


def test_long_names_keep_their_ends() -> None:
    assert literal("a" * 50 + "-seed1") != literal("a" * 50 + "-seed2")
    assert len(literal("a" * 500)) <= 41


@pytest.mark.parametrize("name", ["a_$b$", r"$\frac{x$", "$", "\udc80", "_run", "a\nb", "x" * 900])
@pytest.mark.slow
def test_any_name_is_drawn_as_it_is(name: str) -> None:
    figure, ax = plt.subplots()
    ax.set_title(literal(name))
    ax.plot([0, 1], label=literal(name))
    ax.legend()
    figure.draw_without_rendering()
    assert "\n" not in literal(name)
    assert len(ax.get_legend_handles_labels()[1]) == 1


@pytest.mark.parametrize("name", ["relora", "llama-5L-relora-r6-lr6e-3-seed1", "x" * 90, "_a_$b$"])
@pytest.mark.parametrize("inches", [0.4, 1.0, 3.0])
def test_a_title_keeps_to_its_lines_and_the_ends_of_the_name(name: str, inches: float) -> None:
    lines = name_title(name, inches).replace(r"\$", "$").split("\n")
    assert len(lines) <= 3
    shown = "".join(line.removeprefix(" ") for line in lines)
    assert shown == name or (shown[:3], shown[-3:]) == (name[:3], name[-3:])


def test_names_are_broken_after_their_punctuation() -> None:
    assert name_title("full-hidden48-layers2", 0.6) == "full-\nhidden48-\nlayers2"


def test_a_label_is_wrapped_at_its_words_but_never_in_a_formula() -> None:
    assert wrapped("PER = effective rank / min(m, n)", 1.0) == "PER = effective\nrank / min(m, n)"
    assert wrapped(r"$\kappa = \sigma_1/\sigma_q$", 0.3) == r"$\kappa = \sigma_1/\sigma_q$"
    decay = r"$\alpha$-ReQ = decay of the eigenvalues"
    assert wrapped(decay, 1.2) == "$\\alpha$-ReQ = decay of the\neigenvalues"
    assert wrapped(r"two $a$$b c$, \$5", 0.3) == "two\n$a$$b c$, \\$5"


def test_names_that_differ_only_in_their_middle_are_told_apart() -> None:
    names = [f"{'a' * 30}-seed{i}-{'b' * 30}" for i in (1, 2)]
    assert len({*legend_names(names).values()}) == 2
    assert legend_names(["c" * 50])["c" * 50] == literal("c" * 50)


def test_names_that_beginning_and_end_do_not_tell_apart_lose_what_they_have_in_common() -> None:
    names = [f"{'a' * 30}-{own}-{'b' * 30}" for own in ("full", "frozen")]
    assert [*legend_names(names).values()] == ["…full…", "…frozen…"]
    without_signs = [f"{'a' * 30}{own}{'b' * 30}" for own in "xy"]
    assert [*legend_names(without_signs).values()] == without_signs


def test_titles_side_by_side_differ() -> None:
    names = [f"llama-11M_bs1024_{own}-warmup500-cosine_seed1" for own in ("full", "relora")]
    assert name_titles(names, 0.5) == ["…full…", "…relora…"]
    assert name_titles(["a", "b"], 0.5) == ["a", "b"]


def test_a_title_has_no_more_lines_than_it_may() -> None:
    name = "llama-11M_bs1024_relora-lr3e-3-warmup500-cosine_seed1_2025-11-27T08-12-44"
    for inches in (0.3, 0.5, 0.9, 1.3):
        rows = name_title(name, inches).split("\n")
        assert len(rows) <= 3 and max(len(row.strip()) for row in rows) <= max(
            6, int(inches / TITLE_CHARACTER)
        )


# Of each style in TeX's points, of which an inch has 72.27, by other arithmetic than the table's.
POINTS = {
    "acl": (597.51 - 2 * 71.13 - 17.07) / 2,  # A4, margins of 2.5 cm, 0.6 cm between the columns
    "acl-text": 597.51 - 2 * 71.13,
    "iclr": 397.49,  # 5.5 in
    "icml": (487.82 - 18.07) / 2,  # 6.75 in with 0.25 in between
    "icml-text": 487.82,
    "ieee": 252.0,  # (43 pc − 1 pc)/2
    "ieee-text": 516.0,
    "neurips": 397.49,
}


@pytest.mark.parametrize("name", WIDTHS)
def test_a_figure_fits_the_column_of_its_venue(name: str) -> None:
    spare = POINTS[name] - WIDTHS[name] * 72.27
    assert -0.1 <= spare < 0.9  # TeX lets 0.1 pt pass without calling the box overfull
