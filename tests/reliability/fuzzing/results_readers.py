"""What is read from mutants of results and of what an evaluation reads, by a user's doors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import rankscope as rs
from rankscope.analysis.analyze import analyze_runs
from rankscope.analysis.request import Selection
from rankscope.checkpoints.discovery import survey
from rankscope.checkpoints.files.config_files import read_json
from rankscope.errors import RankscopeError
from rankscope.evaluation.evaluation_folder import Evaluation, _with_earlier
from rankscope.evaluation.prefix import prefix_token
from rankscope.evaluation.score_files import read_scores
from rankscope.evaluation.stored_tokenizer import find_tokenizer
from rankscope.evaluation.text_sets import text_sets
from rankscope.report.answer import answer
from rankscope.report.page import _page
from rankscope.results.measure import Row
from rankscope.results.spectra_store import read_entries
from rankscope.results.subspace_store import read_comparisons
from rankscope.scoring.blimp import read_blimp
from rankscope.watching.kept_rows import iter_table
from tests.analysis.series import Inline
from tests.reliability.fuzzing.readers import Reader, Seen, digest, said

ABOUT = ("unit", "breaks", "restarts")
NOTHING = Evaluation((), (), (), 0, None, (), {}, frozenset(), frozenset(), scored=())
TABLES = ("metrics", "evaluation", "subspaces", "training")


def read_results(folder: Path) -> Seen:
    """Everything that opening a results folder gives."""
    seen = _read(folder, (*TABLES, "merges", *ABOUT))
    results = rs.open_results(folder / "results")
    seen.attempt("spectra", lambda: _plain(results.spectra()))
    seen.attempt("summary", results.summary)
    seen.attempt("page", results._repr_html_)
    seen.numbers["kept"] = digest(_kept(folder / "results"))
    return seen


def _kept(out: Path) -> list[Row]:
    """The rows that `watch` goes on from; none of a table that it cannot read."""
    try:
        return [row for _, rows in iter_table(out) for row in rows]
    except RankscopeError:
        return []


def read_only(*names: str) -> Reader:
    """Reads these properties of results."""
    return partial(_read, names=names)


def _read(folder: Path, names: Iterable[str]) -> Seen:
    seen = Seen()
    results = rs.open_results(folder / "results")
    for name in names:
        seen.attempt(name, lambda name=name: _plain(getattr(results, name)))
    return seen


def read_record(folder: Path) -> Seen:
    """What the record of an analysis says."""
    seen = _read(folder, ABOUT)
    results = rs.open_results(folder / "results")
    seen.attempt("summary", results.summary)
    seen.attempt("page", results._repr_html_)
    return seen


def read_own_metric(folder: Path) -> Seen:
    """A column that a function computes from the store."""
    results = rs.open_results(folder / "results").with_metric("largest", lambda s: s[0])
    return Seen({"metric": digest(_plain(results.metrics["largest"]))})


def read_recalled(folder: Path) -> Seen:
    """`analyze` into a folder that holds results already."""
    found = survey([folder / "run", folder / "other"])
    selection, out = Selection.of(subspaces=1), folder / "results"
    analysis = analyze_runs(found, selection, out=out, engine=Inline())
    seen = read_results(folder)
    said(seen, analysis.skips, analysis.notes, analysis.mended)
    return seen


def read_store(folder: Path) -> Seen:
    """The files of the stores of spectra and of subspaces."""
    seen = Seen()
    for path in sorted((folder / "results").glob("s*/*/*.safetensors")):
        read = read_comparisons if "subspaces" in path.parts else read_entries
        if "scores" not in path.parts:
            seen.attempt(path.name, lambda path=path, read=read: read(path))
    return seen


def read_earlier_scores(folder: Path) -> Seen:
    """What `evaluate` keeps of earlier evaluations, and every file of scores."""
    out, seen = folder / "results", Seen()
    for path in sorted(out.glob("scores/*/*.safetensors")):
        seen.attempt(path.name, lambda path=path: read_scores(path).measures)
    kept, damaged = _with_earlier(out, NOTHING)
    said(seen, damaged)
    seen.numbers["kept"] = digest(kept)
    return seen


def draw(name: str) -> Reader:
    """Draws one figure of the gallery."""
    return partial(_drawn, name=name)


def _drawn(folder: Path, *, name: str) -> Seen:
    import matplotlib.pyplot as plt

    from rankscope.plots.gallery import gallery

    results = rs.open_results(folder / "results")
    figure = gallery(results, only=[name])[name](results)
    plt.close("all")
    return Seen({"drawn": digest(figure is not None)})


def write_page(folder: Path) -> Seen:
    """A page without figures, each of which has readers of its own."""
    opened = rs.open_results(folder / "results")
    written = _page(opened, [], [], answer=answer(opened), found=None, title=None)
    return Seen({"page": digest(len(written))})


def diagnose(folder: Path) -> Seen:
    """Findings about the runs, with the help of the results."""
    found = rs.diagnose([folder / "run", folder / "other"], results=folder / "results")
    return Seen({"findings": digest(found.as_document())})


def compare(folder: Path) -> Seen:
    """Two runs of the results, side by side."""
    found = rs.compare("run", "other", results=folder / "results", weights=False)
    return Seen({"metrics": digest(_plain(found.metrics))}, list(found.notes))


def read_tokenizer(folder: Path) -> Seen:
    """A tokenizer, what it makes of texts, and the token before each."""
    seen = Seen()
    found = find_tokenizer([folder], trust_remote_code=False)
    if found is None:
        return seen
    seen.attempt("ids", lambda: found.encode(["ab a", "", "\x00 b"]))
    config = read_json(folder / "config.json")
    seen.attempt("prefix", lambda: prefix_token("auto", found.vocabulary(config, is_own=False)))
    seen.attempt("own", lambda: prefix_token("eos", found.vocabulary(config, is_own=True)))
    return seen


def read_texts(folder: Path) -> Seen:
    """Documents and minimal pairs."""
    seen = Seen()
    for name, read in READ.items():
        seen.attempt(name, partial(read, folder / f"{name}.jsonl"))
    return seen


def _documents(path: Path) -> Any:
    return [
        (one.digest(), list(one.iter_documents(None)), list(one.iter_documents(1)))
        for one in text_sets([str(path)])
    ]


READ: dict[str, Callable[[Path], Any]] = {"text": _documents, "pairs": read_blimp}


def _plain(value: Any) -> Any:
    return value.to_csv() if hasattr(value, "to_csv") else value
