"""Ranks of the adapters, cycle by cycle, above what each new subspace captures.

To change: the role. Without a log of captured energy there is one panel.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rankscope import Results
from rankscope.cli.figures import draw_as_script
from rankscope.plots import adapter_rank, subspaces

ROLE = "q"


def draw(results: Results) -> Figure:
    table, training = results.metrics, results.training
    has_shares = "captured_energy" in training and training["captured_energy"].notna().any()
    figure, axes = plt.subplots(1 + has_shares, 1, sharex=True, squeeze=False, layout="constrained")
    adapter_rank(table, training=training, role=ROLE, ax=axes[0, 0])
    if has_shares:
        subspaces(training, runs=table["run"].unique(), ax=axes[1, 0])
    return figure


if __name__ == "__main__":
    draw_as_script(__file__, draw)
