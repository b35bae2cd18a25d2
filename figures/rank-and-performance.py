"""Correlations of the PER of each role with the loss of each task, by run, with their intervals.

To change: the rank metric, the measures of performance, ``method="pearson"``.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rankscope import Results, correlate
from rankscope.cli.figures import draw_as_script
from rankscope.plots import correlation

COLUMN, METRIC = "per", "loss"


def draw(results: Results) -> Figure:
    evaluation = results.evaluation
    tasks = evaluation.loc[evaluation["metric"] == METRIC, "task"].unique()
    measures = [(task, "all", METRIC) for task in tasks]
    correlations = correlate(results.metrics, evaluation, columns=[COLUMN], measures=measures)
    figure, axes = plt.subplots(1, len(tasks), sharey=True, squeeze=False, layout="constrained")
    for measure, ax in zip(measures, axes.flat, strict=True):
        correlation(correlations, column=COLUMN, measure=measure, legend=False, ax=ax)
        ax.set_title(measure[0])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


if __name__ == "__main__":
    draw_as_script(__file__, draw)
