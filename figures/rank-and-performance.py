"""Correlations of PER and condition number with performance, by role, with their intervals."""

from rankscope import correlate
from rankscope.cli.figures import draw_as_script
from rankscope.plots import rank_and_performance

if __name__ == "__main__":
    draw_as_script(
        __file__,
        lambda results: rank_and_performance(correlate(results.metrics, results.evaluation)),
    )
