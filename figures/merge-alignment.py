"""Whether each restart learns in new directions: overlap with the previous merge, beside chance.

To change: the role; ``against="first"`` compares with the first merge.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rankscope import Results
from rankscope.cli.figures import draw_as_script
from rankscope.plots import merge_overlap

ROLE = "q"


def draw(results: Results) -> Figure:
    figure, ax = plt.subplots(layout="constrained")
    merge_overlap(results.subspaces, role=ROLE, legend=False, ax=ax)
    ax.set_title(ROLE)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


if __name__ == "__main__":
    draw_as_script(__file__, draw)
