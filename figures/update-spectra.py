"""Singular values of the updates at the last step that all runs have, layer by layer.

To change: the step, the role, the matrices; ``hue="run"`` for the median over layers.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rankscope import Results
from rankscope.cli.figures import draw_as_script
from rankscope.plots import spectrum

COMPONENT, ROLE, HUE = "update", "v", "layer"


def draw(results: Results) -> Figure:
    table = results.metrics
    rows = table[(table["component"] == COMPONENT) & (table["spectral_norm"] > 0)]
    runs = sorted(rows["run"].unique())
    step = max(set.intersection(*(set(rows.loc[rows["run"] == run, "step"]) for run in runs)))
    figure, axes = plt.subplots(1, len(runs), sharey=True, squeeze=False, layout="constrained")
    for run, ax in zip(runs, axes.flat, strict=True):
        spectra = results.spectra(COMPONENT, run=run, step=step, role=ROLE)
        spectrum(spectra, hue=HUE, legend=run == runs[-1], ax=ax)
        ax.set_title(f"{run}, step {step}")
    return figure


if __name__ == "__main__":
    draw_as_script(__file__, draw)
