"""Largest singular value over the one at 90 % of the spectrum: a steady condition number."""

from rankscope.cli.figures import draw_as_script
from rankscope.plots import condition_number

if __name__ == "__main__":
    draw_as_script(
        __file__, lambda results: condition_number(results.metrics, column="condition_number_90")
    )
