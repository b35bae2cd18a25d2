"""A metric of one attention circuit by layer and head, a panel for every run, at its last step.

To change: the circuit (``ov``, ``qk``), the metric, the step.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rankscope import Results
from rankscope.cli.figures import draw_as_script
from rankscope.plots import head_map

CIRCUIT, METRIC, STEP = "ov", "stable_rank", None


def draw(results: Results) -> Figure:
    table = results.metrics
    runs = sorted(table.loc[table["component"] == CIRCUIT, "run"].unique())
    figure, axes = plt.subplots(1, len(runs), squeeze=False, layout="constrained")
    for run, ax in zip(runs, axes.flat, strict=True):
        head_map(table, METRIC, component=CIRCUIT, run=run, step=STEP, ax=ax)
        ax.set_title(run)
    return figure


if __name__ == "__main__":
    draw_as_script(__file__, draw)
