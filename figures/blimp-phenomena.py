"""Accuracy in each phenomenon of BLiMP over training.

To change: which phenomena, and their order.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rankscope import Results
from rankscope.cli.figures import draw_as_script
from rankscope.plots import score

COLUMNS = 4


def draw(results: Results) -> Figure:
    evaluation = results.evaluation
    groups = evaluation.loc[evaluation["group"].str.startswith("phenomenon:"), "group"].unique()
    lines = -(-len(groups) // COLUMNS)
    figure, axes = plt.subplots(
        lines, COLUMNS, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for group, ax in zip(groups, axes.flat, strict=False):
        score(evaluation, "accuracy", task="blimp", group=group, legend=False, ax=ax)
        ax.set(title=group.removeprefix("phenomenon:").replace("_", " "), xlabel="", ylabel="")
    for ax in axes.flat[len(groups) :]:
        ax.set_axis_off()
    figure.supxlabel("step")
    figure.supylabel("accuracy")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


if __name__ == "__main__":
    draw_as_script(__file__, draw)
