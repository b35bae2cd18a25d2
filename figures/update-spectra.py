"""Spectra of the updates at an early, a middle and a late step, all runs in each panel."""

from rankscope.cli.figures import draw_as_script
from rankscope.plots import update_spectra

if __name__ == "__main__":
    draw_as_script(__file__, lambda results: update_spectra(results))
