"""PER of one role by layer and step, a panel for every run, on one colour scale.

To change: the role, the metric, the matrices.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rankscope import Results
from rankscope.cli.figures import draw_as_script
from rankscope.plots import heatmap

COMPONENT, METRIC, ROLE = "weight", "per", "q"


def draw(results: Results) -> Figure:
    table = results.metrics
    rows = table[(table["component"] == COMPONENT) & (table["role"] == ROLE)]
    runs = sorted(rows["run"].unique())
    limits = rows[METRIC].min(), rows[METRIC].max()
    figure, axes = plt.subplots(1, len(runs), sharey=True, squeeze=False, layout="constrained")
    for run, ax in zip(runs, axes.flat, strict=True):
        heatmap(
            table,
            METRIC,
            component=COMPONENT,
            run=run,
            role=ROLE,
            limits=limits,
            colorbar=run == runs[-1],
            ax=ax,
        )
        ax.set_title(run)
    return figure


if __name__ == "__main__":
    draw_as_script(__file__, draw)
