"""Rank of the sum of all merges so far, beside the most that it can be.

To change: the role.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rankscope import Results
from rankscope.cli.figures import draw_as_script
from rankscope.plots import merged_rank

ROLE = "q"


def draw(results: Results) -> Figure:
    figure, ax = plt.subplots(layout="constrained")
    merged_rank(results.metrics, role=ROLE, legend=False, ax=ax)
    ax.set_title(ROLE)
    figure.legend(loc="outside upper center", ncols=4)
    return figure


if __name__ == "__main__":
    draw_as_script(__file__, draw)
