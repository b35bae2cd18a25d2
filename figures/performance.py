"""What the models can do at each checkpoint: the loss of every task of texts.

To change: the metric (``perplexity``, ``bits_per_byte``; ``accuracy`` for BLiMP), the part of a
task, the limits of the axes.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rankscope import Results
from rankscope.cli.figures import draw_as_script
from rankscope.plots import score

METRIC, GROUP = "loss", "all"


def draw(results: Results) -> Figure:
    evaluation = results.evaluation
    tasks = evaluation.loc[evaluation["metric"] == METRIC, "task"].unique()
    figure, axes = plt.subplots(1, len(tasks), squeeze=False, layout="constrained")
    for task, ax in zip(tasks, axes.flat, strict=True):
        score(evaluation, METRIC, task=task, group=GROUP, legend=False, ax=ax)
        ax.set_title(task)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


if __name__ == "__main__":
    draw_as_script(__file__, draw)
