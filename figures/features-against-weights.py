"""Rank of the features after each block beside the rank of the weights in it, at the last step.

To change: the numbers, the component, the step; ``group`` to make replicates of runs.
"""

from matplotlib.figure import Figure

from rankscope import Results
from rankscope.cli.figures import draw_as_script
from rankscope.plots import features_against_weights

OF_FEATURES, OF_WEIGHTS, COMPONENT = "per", "per", "weight"


def draw(results: Results) -> Figure:
    return features_against_weights(
        results.metrics,
        results.representations,
        OF_FEATURES,
        of_weights=OF_WEIGHTS,
        component=COMPONENT,
    )


if __name__ == "__main__":
    draw_as_script(__file__, draw)
