"""Accuracy in BLiMP over training, a panel for every phenomenon."""

from rankscope.cli.figures import draw_as_script
from rankscope.plots import blimp_phenomena

if __name__ == "__main__":
    draw_as_script(__file__, lambda results: blimp_phenomena(results.evaluation))
