"""One-line faults that the tests must notice: ``python -m tests.mutants`` plants each and reports.

Each fault is planted in a copy of the repository, where the tests that ought to notice it are run.
It takes minutes and is not part of the suite. A fault whose text is not found any more is reported
as stale: it is to be planted anew where the code went.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("rankscope", "tests", "pyproject.toml", "configs")


@dataclass(frozen=True)
class Mutant:
    """A fault: in which file, what is there, what is planted, and which tests must fail."""

    path: str
    now: str
    planted: str
    tests: str


SHARP = "tests/spectra/test_sharpness.py"
OPTIMIZER = "tests/training/test_optimizer_settings.py"
SEVERAL = "tests/training/test_several_processes.py"
MUTANTS = (
    # Bounds and certificates.
    Mutant("metrics.py", "math.log(s.size - 1)", "math.log(max(s.size - 2, 1))", SHARP),
    Mutant("metrics.py", "- (1 - x) * math.log1p(-x)", "", SHARP),
    Mutant("metrics.py", "distance = min(float(", "distance = 0.5 * min(float(", SHARP),
    Mutant("spectra/bounds.py", "(long_side * trace", "(short_side * trace", SHARP),
    Mutant("spectra/bounds.py", "return 2 * (long_side + 8)", "return (long_side + 8)", SHARP),
    Mutant("spectra/bounds.py", "(upper > noise_floor)", "(upper > 2 * noise_floor)", SHARP),
    Mutant("spectra/bounds.py", "<= 64 * size", "<= 6_400_000 * size", SHARP),
    Mutant("spectra/dense.py", "max(math.frexp(largest)[1], -1000)", "max(0, -900)", SHARP),
    Mutant("spectra/low_rank.py", "np.clip(exponents, -1000, 1000)", "0 * exponents", SHARP),
    # Correlations.
    Mutant(
        "statistics/co_movement.py",
        "changes[len(changes) // 3 :]",
        "changes[0:]",
        "tests/statistics/test_co_movement.py",
    ),
    Mutant(
        "statistics/co_movement.py",
        "1 + 2 * max(lags[0] * lags[1], 0.0)",
        "1 + 0 * max(lags[0] * lags[1], 0.0)",
        "tests/statistics/test_co_movement.py",
    ),
    # What is stored.
    Mutant(
        "results/vectors.py",
        "if has_digest and not _is_sound(text, listing, vectors):",
        "if False:",
        "tests/results/test_vectors.py",
    ),
    # The trainer.
    Mutant("training/loop.py", "weight_decay=config.optimizer.weight_decay,", "", OPTIMIZER),
    Mutant("training/loop.py", "eps=config.optimizer.eps,", "", OPTIMIZER),
    Mutant("training/loop.py", "config.optimizer.beta2)", "0.95)", OPTIMIZER),
    Mutant("training/loop.py", "clip or math.inf", "clip or 1.0", OPTIMIZER),
    Mutant("training/loop.py", "self.processes.require_equal(", "(lambda *_: None)(", SEVERAL),
    Mutant("training/loop.py", "self.processes.rank, index", "0, index", SEVERAL),
    Mutant(
        "training/data/held_out.py",
        "before = before[np.searchsorted(ordered, ordered)]",
        "",
        "tests/training/data/test_held_out.py",
    ),
    Mutant(
        "training/data/corpus.py",
        "return Corpus(tokens[:cut], tokens[cut:], data.vocab_size,",
        "return Corpus(tokens[:cut], tokens[cut:], largest + 1,",
        "tests/training/data/test_corpus.py",
    ),
    Mutant(
        "training/data/corpus.py",
        "_tokenizer(data, training)",
        "_tokenizer(data, training + validation)",
        "tests/training/data/test_corpus.py",
    ),
    Mutant(
        "training/data/held_out.py",
        "return Split(below, cut=fraction if is_only_one else 0.0)",
        "return Split(below)",
        "tests/training/data/test_held_out.py",
    ),
    Mutant(
        "training/data/prepare.py",
        "if not held_out and isinstance(text, str))",
        "if isinstance(text, str))",
        "tests/training/data/test_prepare.py",
    ),
    Mutant(
        "training/data/document_sources.py",
        "data_files=escape(name)",
        "data_files=name",
        "tests/training/data/test_document_sources.py",
    ),
    # Safe writing.
    Mutant(
        "durable.py",
        "    _flush(path.parent)\n    shutil.rmtree(doomed)",
        "    shutil.rmtree(doomed)",
        "tests/test_durable.py",
    ),
    Mutant(
        "durable.py",
        'if match["old"] and not (folder / match["name"]).exists():',
        "if False:",
        "tests/test_durable.py",
    ),
    Mutant(
        "durable.py",
        "        _flush(temporary)\n        temporary.rename(path)",
        "        temporary.rename(path)",
        "tests/test_durable.py",
    ),
    Mutant(
        "training/measuring.py",
        'self.config.relora.probe_sequences, "cycle", cycle)',
        'self.config.relora.probe_sequences, "cycle")',
        "tests/training/test_loop.py",
    ),
    Mutant(
        "training/run_folder/lock.py",
        "os.ftruncate(descriptor, 0)",
        "pass",
        "tests/training/run_folder/test_lock.py",
    ),
    Mutant(
        "training/run_folder/trained_model.py",
        "return model.eval()",
        "return model.train()",
        "tests/training/test_loop.py",
    ),
)


def survives(mutant: Mutant, copy: Path) -> str:
    """What became of a planted fault: ``killed``, ``SURVIVED`` or ``STALE``."""
    path = copy / "rankscope" / mutant.path
    source = path.read_text(encoding="utf-8")
    if source.count(mutant.now) != 1:
        return "STALE"
    path.write_text(source.replace(mutant.now, mutant.planted), encoding="utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, *mutant.tests.split()],
            cwd=copy,
            env=environment,
            capture_output=True,
            check=False,
            timeout=900,
        )
    finally:
        path.write_text(source, encoding="utf-8")
    return "killed" if done.returncode == 1 else "SURVIVED"


def main() -> None:
    """Plant all faults, or those whose file has the given text in its path."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("only", nargs="?", default="", help="Text in the path of the file.")
    chosen = [mutant for mutant in MUTANTS if parser.parse_args().only in mutant.path]
    with tempfile.TemporaryDirectory() as folder:
        for name in COPIED:
            source, target = ROOT / name, Path(folder, name)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        found = []
        for mutant in chosen:
            found.append(survives(mutant, Path(folder)))
            print(f"{found[-1]:9}{mutant.path}: {mutant.now}", flush=True)
    print(f"{found.count('killed')} of {len(found)} killed")
    sys.exit(found.count("killed") != len(found))


if __name__ == "__main__":
    main()
