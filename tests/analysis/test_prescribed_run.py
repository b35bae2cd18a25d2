"""A run whose spectra are prescribed, through the whole command."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import hadamard

from rankscope.analysis.copied_process import ONE_THREAD
from tests.conftest import MODULES, Tensors, write_model

PROGRAM = "import sys; from rankscope.cli import main; main()"


def prescribed(rng: np.random.Generator) -> tuple[Tensors, dict[str, np.ndarray]]:
    """Weights that float32 holds exactly, and their singular values, which are integers."""
    tensors, values = {}, {}
    for module, (m, n) in MODULES.items():
        q = min(m, n)
        s = np.sort(rng.integers(1, 2**10, q))[::-1]
        middle = np.zeros((m, n))
        middle[range(q), range(q)] = s
        name = f"{module}.weight"
        left, right = (np.kron(np.eye(side // 8), hadamard(8)) for side in (m, n))
        product = left @ middle @ right.T  # both are √8 times a rotation
        tensors[name], values[name] = product.astype(np.float32), 8.0 * s
        assert (tensors[name] == product).all()
    return tensors, values


def analysed(run: Path, out: Path, threads: str) -> dict[str, bytes]:
    """What the command wrote, but its record, which has times."""
    command = [sys.executable, "-c", PROGRAM, "analyze", str(run), "--out", str(out)]
    environment = os.environ | dict.fromkeys(ONE_THREAD, threads)
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=100)
    written = [*sorted((out / "spectra").rglob("*.*")), out / "metrics.csv"]
    return {str(path.relative_to(out)): path.read_bytes() for path in written if path.is_file()}


@pytest.mark.slow
def test_both_kinds_of_workers_find_what_was_prescribed_and_the_same_bits(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    tensors, values = prescribed(rng)
    write_model(tmp_path / "run" / "step_1", tensors)
    # With two threads for linear algebra here, the workers are programs of their own.
    copies, programs = (analysed(tmp_path / "run", tmp_path / n, n) for n in ("1", "2"))
    assert copies == programs and len(copies) > 1
    rows = pd.read_csv(tmp_path / "1" / "metrics.csv").query("component == 'weight'")
    assert set(rows["name"]) == set(values)
    for row in rows.itertuples():
        s = values[row.name]
        p = s / s.sum()
        assert abs(row.spectral_norm - s[0]) <= row.sigma_error
        assert abs(row.per * len(s) / np.exp(-(p * np.log(p)).sum()) - 1) <= row.per_error + 1e-14
        assert row.frobenius_norm == pytest.approx(np.sqrt((s**2).sum()), rel=1e-13)
        assert row.nuclear_norm == pytest.approx(s.sum(), abs=len(s) * row.sigma_error)
