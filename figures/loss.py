"""Training and validation loss of every run, with its restarts.

To change: the axes, such as a log scale or the steps that are shown, or one line per method.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rankscope import Results
from rankscope.cli.figures import draw_as_script
from rankscope.plots import loss


def draw(results: Results) -> Figure:
    training = results.training
    # Replicates that differ in a seed become one line: their mean.
    training["method"] = training["run"].str.replace(r"-seed\d+", "", regex=True)
    figure, ax = plt.subplots(layout="constrained")
    loss(training, hue="method", legend=False, ax=ax)
    ax.set_ylim(top=training["loss"].quantile(0.99))
    figure.legend(loc="outside upper center", ncols=3)
    return figure


if __name__ == "__main__":
    draw_as_script(__file__, draw)
