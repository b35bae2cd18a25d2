"""Proportional effective rank of the adapters' deltas, a panel for every role."""

from rankscope.cli.figures import draw_as_script
from rankscope.plots import per

if __name__ == "__main__":
    draw_as_script(__file__, lambda results: per(results.metrics, "adapter"))
