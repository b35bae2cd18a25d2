"""Condition numbers over the rank of the adapters' deltas, a panel for every role."""

from rankscope.cli.figures import draw_as_script
from rankscope.plots import condition_number

if __name__ == "__main__":
    draw_as_script(__file__, lambda results: condition_number(results.metrics, "adapter"))
