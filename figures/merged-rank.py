"""Rank of everything merged so far: the staircase that low-rank training climbs."""

from rankscope.cli.figures import draw_as_script
from rankscope.plots import merged_ranks

if __name__ == "__main__":
    draw_as_script(__file__, lambda results: merged_ranks(results.metrics))
