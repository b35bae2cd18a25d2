"""Tail index of one role over training, and that of a Gaussian matrix of the shape.

To change: the role; ``outliers`` counts what stands out of the bulk.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rankscope import Results
from rankscope.cli.figures import draw_as_script
from rankscope.plots import metric

ROLE = "q"


def draw(results: Results) -> Figure:
    table = results.metrics
    figure, ax = plt.subplots(layout="constrained")
    metric(table, "tail_index", role=ROLE, legend=False, ax=ax)
    rows = table[(table["component"] == "weight") & (table["role"] == ROLE)]
    for by_chance in rows["tail_index_gaussian"].dropna().round(6).unique():
        ax.axhline(by_chance, color="0.35", linestyle=":", linewidth=0.9)
    ax.set_title(ROLE)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


if __name__ == "__main__":
    draw_as_script(__file__, draw)
