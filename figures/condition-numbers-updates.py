"""Condition numbers of the updates over training, of attention and of the MLP.

To change: the roles; the column, ``condition_number_90`` for weights; the matrices. κ_r of runs
whose ranks differ are not comparable, which the legend says.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rankscope import Results
from rankscope.cli.figures import draw_as_script
from rankscope.plots import metric

COMPONENT, METRIC, ROLES = "update", "condition_number_r", ("v", "down")


def draw(results: Results) -> Figure:
    figure, panels = plt.subplots(1, len(ROLES), sharey=True, layout="constrained")
    for role, ax in zip(ROLES, panels, strict=True):
        metric(results.metrics, METRIC, component=COMPONENT, role=role, legend=False, ax=ax)
        ax.set_title(role)
    panels[1].set_ylabel("")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


if __name__ == "__main__":
    draw_as_script(__file__, draw)
