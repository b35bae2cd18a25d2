"""Proportional effective rank of the updates since the start, a panel for every role."""

from rankscope.cli.figures import draw_as_script
from rankscope.plots import per

if __name__ == "__main__":
    draw_as_script(__file__, lambda results: per(results.metrics, "cumulative_update"))
