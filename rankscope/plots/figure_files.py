"""`save_figure`: one figure as PDF and PNG with its caption, the same bytes for the same figure."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from rankscope.durable import write_file
from rankscope.errors import require_folder
from rankscope.plots.captions import Caption
from rankscope.statistics.markup import latex

# Neither file says when and by which version it was made, so that git sees only real changes.
_METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


def save_figure(
    figure: Figure, folder: str | Path, name: str, *, caption: Caption | str | None = None
) -> list[Path]:
    r"""Write a figure as ``name.pdf`` and ``name.png`` (300 dpi) into a folder.

    Each file is written in full and then renamed, so a simultaneous reader gets either the old file
    or the new one. Fonts are embedded as TrueType. The same figure gives the same bytes.

    Parameters
    ----------
    figure
        The figure, at the size it has on paper.
    folder
        Where to write; created if it does not exist.
    name
        File name without suffix, such as a key of `FIGURES`.
    caption
        Also written as ``name.tex``, for ``\caption{\input{name}}``: text in which ``$…$`` is
        mathematics, as in labels, and everything else is printed as it is.

    Returns
    -------
    The files written, PDF first and the caption last.

    Raises
    ------
    WrongSettingError
        If ``folder`` is a file.
    OSError
        If a file cannot be written; no part of it is left then.

    Examples
    --------
    >>> import rankscope as rs
    >>> table = rs.open_results("results").metrics
    >>> with rs.plots.paper_style("acl"):
    ...     paths = rs.plots.save_figure(rs.plots.per(table), "figures", "per-weights")
    >>> [path.name for path in paths]
    ['per-weights.pdf', 'per-weights.png']
    """
    require_folder(folder, setting="folder")
    written = []
    with _laid_out(figure), mpl.rc_context({"pdf.fonttype": 42, "savefig.bbox": None}):
        for suffix, metadata in _METADATA.items():
            content = io.BytesIO()
            figure.savefig(content, format=suffix, dpi=300, metadata=metadata)
            written.append(Path(folder) / f"{name}.{suffix}")
            write_file(written[-1], content.getvalue())
    if caption is not None:
        # Without a comment sign the end of the line would be a space before what follows.
        written.append(Path(folder) / f"{name}.tex")
        write_file(written[-1], f"{latex(str(caption))}%\n".encode())
    return written


@contextmanager
def _laid_out(figure: Figure) -> Iterator[None]:
    """Make the layout once for all files: with many panels it takes most of the time."""
    engine = figure.get_layout_engine()
    if engine is None:
        yield
        return
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    try:
        yield
    finally:
        figure.set_layout_engine(engine)
