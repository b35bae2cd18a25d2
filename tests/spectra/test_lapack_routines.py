"""Routines of the libraries that numpy and scipy bring, whatever the size of their integers."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rankscope.spectra import lapack_routines
from rankscope.spectra.lapack_routines import LINKED, Routines, routines
from rankscope.spectra.symmetric import TwoStages

NAMES = ("dsytrd_sy2sb", "dsytrd_sb2st", "dsterf")


def library_of(package: str) -> str:
    """What a package says that it was built with."""
    module = pytest.importorskip(package)
    found = module.show_config(mode="dicts")["Build Dependencies"]["lapack"]["name"]
    return str(found)


@pytest.fixture(params=["numpy", "scipy"])
def lapack(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Routines:
    """The library of one package alone; its wheels are known to have the routines."""
    monkeypatch.setattr(lapack_routines, "LINKED", {request.param: LINKED[request.param]})
    found = routines(*NAMES)
    if found is None:
        assert library_of(request.param) != "scipy-openblas"
        pytest.skip("this build has other routines")
    return found


def test_integers_of_either_size_are_passed(lapack: Routines, rng: np.random.Generator) -> None:
    """numpy's wheels have 64 bits, scipy's 32: also where a routine counts back, and fails."""
    a = rng.normal(size=(90, 90))
    a += a.T
    found = TwoStages(lapack, width=8).eigenvalues(a)
    assert found == pytest.approx(np.linalg.eigvalsh(a), abs=1e-13 * float(np.linalg.norm(a)))
    with pytest.raises(np.linalg.LinAlgError, match="dsterf failed"):
        TwoStages(lapack, width=8).eigenvalues(np.full((90, 90), np.nan))


def test_openblas_says_which_kernels_it_chose(lapack: Routines) -> None:
    package = "numpy" if "numpy" in lapack_routines.LINKED else "scipy"
    assert lapack.kernel.isalnum() or "openblas" not in library_of(package)


def test_a_library_needs_all_of_the_routines(lapack: Routines) -> None:
    assert lapack.has("dsterf") and not lapack.has("dsytrd_no_such_routine")
    assert routines("dsterf", "dsytrd_no_such_routine") is None


def test_without_a_library_or_in_another_order_of_bytes_there_are_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as big:
        big.setattr("sys.byteorder", "big")
        assert routines("dsterf") is None
    with monkeypatch.context() as gone:
        gone.setattr(lapack_routines, "find_spec", lambda package: None)
        assert routines("dsterf") is None
    (tmp_path / "linalg").mkdir()
    (tmp_path / "linalg" / "_umath_linalg.so").write_text("not a library")
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(lapack_routines, "find_spec", lambda package: spec)
    assert routines("dsterf") is None


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
@pytest.mark.parametrize("threads", ["1", "3"])
def test_a_forked_process_finds_the_same_bits(threads: str) -> None:
    """After use in its parent, by the threads of the library."""
    script = """
import os, numpy as np
from rankscope.spectra.symmetric import two_stages
a = np.random.default_rng(0).normal(size=(400, 400)); a = a @ a.T
stages = two_stages()
if stages:
    first = stages.eigenvalues(a)
    child = os.fork()
    if not child:
        os._exit(0 if (stages.eigenvalues(a) == first).all() else 9)
    assert os.waitpid(child, 0)[1] == 0 and (stages.eigenvalues(a) == first).all()
"""
    env = {"OMP_NUM_THREADS": threads, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, env=env)
