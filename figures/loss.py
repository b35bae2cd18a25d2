"""Training and validation loss of every run, with the restarts."""

from rankscope.cli.figures import draw_as_script
from rankscope.plots import losses

if __name__ == "__main__":
    draw_as_script(__file__, lambda results: losses(results.training))
