"""What a monitor costs a training: the share that it keeps, and how much slower the training is.

Trains a small transformer-like stack with and without a monitor, in turns, and compares processor
time of the training's thread, wall time, and what the monitor reports as its cost.

    python -m benchmarks.monitor_cost [--width 256] [--steps 200]
"""

from __future__ import annotations

import argparse
import json
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


def train(
    width: int, layers: int, *, tokens: int, steps: int, out: Path | None = None
) -> dict[str, float]:
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
    used = {"processor": time.thread_time() - processor, "wall": time.perf_counter() - wall}
    if monitor is None:
        return used
    used["share"] = monitor.cost.share
    monitor.close()
    return used | {"recorder": monitor.cost.processor_seconds}


def main() -> None:
    """Print what each round took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {"tokens": given.tokens, "steps": given.steps}
    rounds = []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            plain = train(given.width, given.layers, **sizes)
            monitored = train(given.width, given.layers, **sizes, out=Path(folder))
            rows = len(rs.open_results(folder).metrics)
        rounds.append({"plain": plain, "monitored": monitored, "rows": rows})
    print(json.dumps({"rounds": rounds}))


if __name__ == "__main__":
    main()
