"""Proportional effective rank of the weights over training, a panel for every role.

To change: which matrices (``update``, ``cumulative_update``, ``adapter``, …), which metric of them,
and what the lines are: ``hue="layer"`` for one run, or a column that you add to the table.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rankscope import Results
from rankscope.cli.figures import draw_as_script
from rankscope.plots import metric

COMPONENT, METRIC, HUE = "weight", "per", "run"


def draw(results: Results) -> Figure:
    table = results.metrics
    rows = table[table["component"] == COMPONENT]
    roles = rows["role"].unique()
    figure, axes = plt.subplots(
        2, (len(roles) + 1) // 2, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for role, ax in zip(roles, axes.flat, strict=False):
        metric(table, METRIC, component=COMPONENT, role=role, hue=HUE, legend=False, ax=ax)
        # What a random matrix of the shape has: without it, roles are not comparable.
        for baseline in rows.loc[rows["role"] == role, "per_gaussian"].round(6).unique():
            ax.axhline(baseline, color="0.35", linestyle=":", linewidth=0.9)
        ax.set(title=role, xlabel="", ylabel="")
    for ax in axes.flat[len(roles) :]:
        ax.set_axis_off()
    figure.supxlabel("step")
    figure.supylabel("PER")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


if __name__ == "__main__":
    draw_as_script(__file__, draw)
