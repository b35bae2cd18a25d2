"""How many leading singular vectors have no counterpart in the previous checkpoint, by step.

To change: the role, and what the lines are: ``hue="layer"`` for one run.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rankscope import Results
from rankscope.cli.figures import draw_as_script
from rankscope.plots import intruder_count

ROLE, HUE = None, "run"


def draw(results: Results) -> Figure:
    figure, ax = plt.subplots(layout="constrained")
    intruder_count(results.subspaces, role=ROLE, hue=HUE, legend=False, ax=ax)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


if __name__ == "__main__":
    draw_as_script(__file__, draw)
