"""How alike the layers of each run are at its last step, by unbiased CKA.

To change: the measure (``svcca``, ``pwcca``), the step, the place.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rankscope import Results
from rankscope.cli.figures import draw_as_script
from rankscope.plots import layer_similarity

MEASURE, AT, LIMITS = "cka", "block", (0.0, 1.0)


def draw(results: Results) -> Figure:
    table = results.similarities
    runs = sorted(table.loc[table["comparison"] == "layers", "run"].unique())
    figure, axes = plt.subplots(1, len(runs), squeeze=False, layout="constrained")
    figure.set_figheight(figure.get_figwidth() / (len(runs) + 0.5) + 0.4)
    for run, ax in zip(runs, axes.flat, strict=True):
        is_last = run == runs[-1]
        layer_similarity(table, MEASURE, run=run, at=AT, limits=LIMITS, colorbar=is_last, ax=ax)
        ax.set_title(run)
    return figure


if __name__ == "__main__":
    draw_as_script(__file__, draw)
