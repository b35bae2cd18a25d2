"""How a metric changes with depth: by layer for one run, and its slope over layers for all.

To change: the run, the role, the metric; ``steps=[0, 1000]`` chooses the lines.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rankscope import Results
from rankscope.cli.figures import draw_as_script
from rankscope.plots import depth_slope, layer_profile

METRIC, ROLE = "per", "q"


def draw(results: Results) -> Figure:
    table = results.metrics
    run = sorted(table.loc[table["component"] == "weight", "run"].unique())[0]
    figure, (profiles, slopes) = plt.subplots(1, 2, layout="constrained")
    layer_profile(table, METRIC, role=ROLE, run=run, ax=profiles)
    profiles.set_title(run)
    depth_slope(table, METRIC, role=ROLE, legend=False, ax=slopes)
    figure.legend(*slopes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


if __name__ == "__main__":
    draw_as_script(__file__, draw)
