"""The README's Python, executed as it is written, on runs whose numbers numpy computes again."""

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import LAYERS, Matrix, TinyRun

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
QUERIES = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(LAYERS)]


def effective_rank(matrix: Matrix) -> float:
    s = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    p = s / s.sum()
    return float(np.exp(-np.sum(p * np.log(p))))


def shown(names: dict[str, Any]) -> list[Any]:
    """What a notebook shows of each expression but those on evaluations, which need a language."""
    found = []
    for line in map(ast.unparse, ast.parse(EXAMPLE).body):
        if "evaluat" not in line and isinstance(ast.parse(line).body[0], ast.Expr):
            found.append(eval(line, names))
        elif "evaluat" not in line:
            exec(line, names)
    return found


def test_the_example_gives_the_per_of_weights_without_updates_and_of_a_product(
    relora_run: TinyRun, full_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {
        ("relora", step): [tensors[f"{m}.weight"] + relora_run.delta(step, m) for m in QUERIES]
        for step, tensors in relora_run.weights.items()
    }
    for folder in full_run.iterdir():
        tensors = load_file(folder / "model.safetensors")
        step = int(folder.name.removeprefix("checkpoint-"))
        weights["full", step] = [tensors[f"{m}.weight"] for m in QUERIES]
    factors = dict(zip("BA", relora_run.factors[10][QUERIES[0]], strict=True))
    monkeypatch.chdir(tmp_path)

    per, _, (rank, share, _) = shown(factors)

    truth = {
        key: np.mean([effective_rank(one) / min(one.shape) for one in found])
        for key, found in weights.items()
    }
    assert per.to_dict() == pytest.approx(truth, rel=1e-9)
    assert rank == pytest.approx(effective_rank(factors["B"] @ factors["A"]), rel=1e-9)
    assert share == pytest.approx(rank / 96)
