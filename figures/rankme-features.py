"""RankMe of what each layer gives, with its interval and what Gaussian features have.

To change: the number (``alpha_req``, ``mean_cosine``), the layers, the place.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rankscope import Results
from rankscope.cli.figures import draw_as_script
from rankscope.plots import feature

COLUMN, AT = "rankme", "block"


def draw(results: Results) -> Figure:
    table = results.representations
    layers = sorted(table.loc[table["at"] == AT, "layer"].unique())
    shown = dict.fromkeys([layers[0], layers[-1]])
    figure, axes = plt.subplots(1, len(shown), sharey=True, squeeze=False, layout="constrained")
    for layer, ax in zip(shown, axes.flat, strict=True):
        feature(table, COLUMN, layer=layer, at=AT, legend=False, ax=ax)
        ax.set_title(f"{AT} {layer}")
        ax.label_outer()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


if __name__ == "__main__":
    draw_as_script(__file__, draw)
