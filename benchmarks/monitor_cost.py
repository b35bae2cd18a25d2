"""What a monitor costs a training: the share that it keeps, and how much slower the training is.

Trains a small transformer-like stack with and without a monitor, in turns, and compares processor
time of the training's thread, wall time, and what the monitor says of itself. Run it on an idle
machine: `python benchmarks/monitor_cost.py [--width 256] [--steps 200]`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

import rankscope as rs


class Block(nn.Module):
    """Four square maps and two of an MLP, with the names of Llama."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, nn.Linear(width, width, bias=False))
        self.up_proj = nn.Linear(width, 4 * width, bias=False)
        self.down_proj = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A residual block, without attention."""
        gate = torch.tanh(self.q_proj(x) * self.k_proj(x))
        x = x + self.o_proj(gate * self.v_proj(x))
        return x + self.down_proj(torch.relu(self.up_proj(x)))


def train(width: int, layers: int, tokens: int, steps: int, out: Path | None) -> list[float]:
    """Processor and wall time of a training, its monitor's share, and its recorder's time."""
    torch.manual_seed(0)
    model = nn.Sequential(*(Block(width) for _ in range(layers)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    batch = torch.randn(tokens, width)
    monitor = None if out is None else rs.Monitor(model, out, every=10)
    processor, wall = time.thread_time(), time.perf_counter()
    for step in range(1, steps + 1):
        model(batch).square().mean().backward()
        optimizer.step()
        if monitor is not None:
            monitor.step(step)
        optimizer.zero_grad()
    used = [time.thread_time() - processor, time.perf_counter() - wall]
    if monitor is None:
        return used
    share = monitor.cost.share
    monitor.close()
    return [*used, share, monitor.cost.processor_seconds]


def main() -> None:
    """Print one line per training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    size = given.width, given.layers, given.tokens, given.steps
    for _ in range(given.repeats):
        with tempfile.TemporaryDirectory() as folder:
            plain, monitored = train(*size, None), train(*size, Path(folder))
            table = rs.open_results(folder).metrics
        print(
            f"training {plain[0]:.2f} s of processor, {plain[1]:.2f} s; monitored "
            f"{monitored[0]:.2f} s, {monitored[1]:.2f} s; share {monitored[2]:.2%}; recorder "
            f"{monitored[3]:.2f} s of processor; {len(table)} rows"
        )


if __name__ == "__main__":
    main()
