"""Perplexity and accuracy of every run over training, with their intervals."""

from rankscope.cli.figures import draw_as_script
from rankscope.plots import performance

if __name__ == "__main__":
    draw_as_script(__file__, lambda results: performance(results.evaluation))
