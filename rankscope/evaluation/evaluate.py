"""`evaluate`: from run folders and text to the table of what the models are worth."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rankscope.checkpoints.discovery import open_runs
from rankscope.checkpoints.steps import StepRange
from rankscope.errors import RankscopeError
from rankscope.evaluation.open_model import OpenOptions
from rankscope.evaluation.scoring import evaluate_runs
from rankscope.evaluation.tasks import Windows, tasks_of

if TYPE_CHECKING:
    import pandas as pd


def evaluate(
    paths: str | Path | Iterable[str | Path],
    *,
    text: str | Path | Iterable[str | Path] = (),
    blimp: str | Path | None = None,
    held_out: bool = False,
    out: str | Path | None = None,
    steps: StepRange | None = None,
    window: int | None = None,
    stride: int | None = None,
    document_perplexity: bool = True,
    max_documents: int | None = None,
    pairs: int | None = None,
    leading_space: bool = False,
    prefix: str = "auto",
    tokenizer: str | Path | None = None,
    device: str = "cpu",
    precision: str = "float32",
    layout: str | None = None,
    trust_remote_code: bool = False,
) -> pd.DataFrame:
    """Score every checkpoint of the runs at ``paths`` on text and on minimal pairs.

    Parameters
    ----------
    paths
        Folders: of a run, of a tree of runs, or of one checkpoint. Checkpoints of this package's
        trainer, and any that transformers can open as a causal language model.
    text
        Text sets: each a file, a folder of files or a pattern, or ``NAME=`` and one of these.
        Plain text is one document a file; JSONL one a line under ``text``, with ``source`` and
        ``subdomain`` as Paloma has them.
    blimp
        BLiMP: its folder, its zip, or a JSONL file of minimal pairs.
    held_out
        Whether to score each run of this package's trainer on the text that it held out.
    out
        Where to write the table and keep the scores; what is there already and still true is not
        computed again, and what other calls wrote stays in the table. None keeps nothing.
    steps
        First step, last step (None: to the end) and stride; all by default.
    window, stride, document_perplexity
        How documents are cut, see `Windows`.
    max_documents
        At most so many of each text set, from all its files alike; all by default.
    pairs
        The first so many of each BLiMP paradigm; all by default.
    leading_space
        Whether a space stands before every sentence of a pair, as evaluation harnesses have it.
    prefix
        What stands before every text: ``auto`` (the beginning of a text if the tokenizer has one,
        else its end), ``bos``, ``eos``, ``none``, or a token.
    tokenizer
        A tokenizer.json, or a folder with a tokenizer, instead of those beside the checkpoints.
    device, precision
        ``cpu`` or ``cuda``; ``float32`` or ``bfloat16``.
    layout
        Read the checkpoints as this on-disk layout instead of recognising it.
    trust_remote_code
        Let a model run the code that lies beside it.

    Returns
    -------
    One row a number: the columns run, step, task, group, metric, value, ci_low, ci_high, n. What
    was skipped is in ``attrs["skipped"]``, with a warning.

    Raises
    ------
    RankscopeError
        If there is nothing to evaluate, the text cannot be read or no checkpoint be evaluated.
    OSError
        If ``out`` cannot be written.
    """
    tasks = tasks_of(
        text=[str(text)] if isinstance(text, (str, Path)) else [str(one) for one in text],
        blimp=None if blimp is None else Path(blimp),
        held_out=held_out,
        windows=Windows(window, stride, document_perplexity),
        max_documents=max_documents,
        pairs_each=pairs,
        leading_space=leading_space,
    )
    options = OpenOptions(
        tokenizer=None if tokenizer is None else str(tokenizer),
        prefix=prefix,
        device=device,
        precision=precision,
        trust_remote_code=trust_remote_code,
    )
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    runs = open_runs(given, layout=layout)
    with _folder(out) as folder:
        found = evaluate_runs(runs, tasks, out=folder, options=options, steps=steps)
        if not found.scored:
            reason = found.skips[0]
            raise RankscopeError(
                f"no checkpoint could be evaluated; {len(found.skips)} skipped, the first: {reason}"
            )
        from rankscope.evaluation.evaluation_folder import write_results

        table = write_results(folder, found)
    if found.skips:
        table.attrs["skipped"] = [vars(skip) for skip in found.skips]
        warnings.warn(f"{len(found.skips)} skipped, the first: {found.skips[0]}", stacklevel=2)
    return table


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    if out is not None:
        yield Path(out)
        return
    with tempfile.TemporaryDirectory(prefix="rankscope-") as folder:
        yield Path(folder)
