"""Ranks of the adapters by cycle, the effective ranks that they reached, and their subspaces."""

from rankscope.cli.figures import draw_as_script
from rankscope.plots import adapter_ranks

if __name__ == "__main__":
    draw_as_script(__file__, lambda results: adapter_ranks(results))
