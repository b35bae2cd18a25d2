"""How far leading singular subspaces moved since the previous checkpoint, beside chance.

To change: the size of the subspaces, the roles, and the checkpoint that they are compared with.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rankscope import Results
from rankscope.cli.figures import draw_as_script
from rankscope.plots import overlap

K, ROLES, AGAINST = 4, ("q", "v"), "previous"


def draw(results: Results) -> Figure:
    figure, axes = plt.subplots(1, len(ROLES), sharey=True, layout="constrained")
    for role, ax in zip(ROLES, axes, strict=True):
        overlap(results.subspaces, K, role=role, against=AGAINST, legend=False, ax=ax)
        ax.set(title=role, ylabel="")
    figure.supylabel(f"overlap, k = {K}")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


if __name__ == "__main__":
    draw_as_script(__file__, draw)
