"""Proportional effective rank of the updates since the start, by layer and step."""

from rankscope.cli.figures import draw_as_script
from rankscope.plots import heatmaps

if __name__ == "__main__":
    draw_as_script(
        __file__, lambda results: heatmaps(results.metrics, component="cumulative_update")
    )
