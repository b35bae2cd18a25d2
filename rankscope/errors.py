"""The one exception for what a user can put right, and the one warning.

    Exception
    └── RankscopeError          something in the input: a file, a tensor, a folder
        └── WrongSettingError   something that was asked for: a setting, a name, a missing file
    UserWarning
    └── RankscopeWarning        worth a line, although the work continues

Messages name settings as Python does, in backquotes: choose another `out`. The command line shows
each as its option.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import accumulate, islice
from pathlib import Path

from rankscope.addresses import shown

# What taking a parsed document apart raises where it is not what it should be.
DAMAGE = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(RecursionError, OverflowError),
)
ROOM = 300  # characters for the names to choose from
MOST_NAMES = 1000  # of a folder that are compared with one that is not there
LONGEST = 440  # characters; a line has 500, and what is around an error takes its part


class RankscopeError(Exception):
    """Something wrong with the input, which the user can correct.

    Parameters
    ----------
    message
        What was given, what was wrong and what to do, as one line.
    path
        The file or folder at fault, which is printed before the message; its address, if it lies
        elsewhere.
    tensor
        The name of the tensor at fault, which is printed between the two.
    reason
        A short code, for lists of what was skipped.

    Examples
    --------
    >>> import rankscope as rs
    >>> try:
    ...     rs.open_run("nowhere")
    ... except rs.RankscopeError as error:
    ...     print(error)
    nowhere: does not exist
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | Path | None = None,
        tensor: str | None = None,
        reason: str = "unreadable",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = None if path is None else shown(path)
        self.tensor = tensor
        self.reason = reason

    def __str__(self) -> str:
        message = printable(self.message, limit=LONGEST - 100)
        room = (LONGEST - len(message)) // 2 - 4
        where = [] if self.path is None else [_end_of(plain(self.path), limit=min(room, 200))]
        if self.tensor is not None:
            where.append(repr(printable(self.tensor, limit=min(room, 200) - 2)))
        return printable(": ".join([*where, message]), limit=LONGEST)


def _end_of(path: str, *, limit: int) -> str:
    """The path; if it is longer, its end, which says most."""
    return path if len(path) <= limit else f"…{path[1 - limit :]}"


class WrongSettingError(RankscopeError):
    """Something that was asked for and cannot be had; the command line ends with 2, wrong use.

    An unknown name, settings that contradict each other, or data that was named and is not there.
    """


class RankscopeWarning(UserWarning):
    """Something worth knowing although the work continues, such as what was skipped.

    Examples
    --------
    Here the weights of one step are cut short. The other steps are analysed, and the table says
    what is missing:

    >>> import warnings
    >>> import rankscope as rs
    >>> with open("ckpts/full/checkpoint-10/model.safetensors", "r+b") as file:
    ...     size = file.truncate(5000)
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always", rs.RankscopeWarning)
    ...     table = rs.analyze("ckpts/full", components=["weight"], jobs=1)
    >>> table["step"].unique().tolist()
    [5, 100]
    >>> print(caught[0].message)
    1 skipped, the first: ckpts/full/checkpoint-10/model.safetensors: is cut short: ...
    """


def cannot_be_read(error: OSError, path: str | Path | None = None) -> RankscopeError:
    """The error for a file or folder that the system does not let us read.

    Parameters
    ----------
    path
        What was read, if the system does not name it.
    """
    reason = "permission" if isinstance(error, PermissionError) else "unreadable"
    message = f"cannot be read ({error.strerror or error})"
    return RankscopeError(message, path=error.filename or path, reason=reason)


def require_folder(path: str | Path, *, setting: str = "out") -> None:
    """Check that a folder can be where something is to be written; nothing is made.

    Parameters
    ----------
    setting
        What named it.

    Raises
    ------
    WrongSettingError
        If a file is there, or where a folder above it would be.
    """
    for folder in (Path(path), *Path(path).parents):
        if folder.is_dir():
            return
        if os.path.lexists(folder):
            raise WrongSettingError(f"is a file: `{setting}` must be a folder", path=folder)


def first_line(error: Exception) -> str:
    """The first line of a library's error, cut to fit into another message; its type if empty."""
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0], limit=160)


def closest_first(name: str, known: Iterable[str]) -> str:
    """Names to choose from, as a message lists them: what is most like the one given comes first.

    Of many names, as many as a message has room for, and the number of the others.

    Examples
    --------
    >>> closest_first("wieght", ["update", "base", "weight"])
    'weight, update, base'
    >>> closest_first("c", [letter * 150 for letter in "ab"] + ["c"])[-12:]
    'a and 1 more'
    """
    from difflib import get_close_matches

    there = list(known)
    ordered = list(dict.fromkeys((*get_close_matches(name, there, n=5, cutoff=0.5), *there)))
    ends = accumulate(len(each) + 2 for each in ordered)
    shown = sum(end <= ROOM for end in ends)
    more = f" and {len(ordered) - shown} more" if shown < len(ordered) else ""
    return ", ".join(ordered[:shown]) + more


def does_not_exist(path: str | Path) -> str:
    """That a path does not exist, and which one in its folder is most like it, if any is."""
    from difflib import get_close_matches

    try:
        beside = [one.name for one in islice(Path(path).parent.iterdir(), MOST_NAMES)]
    except OSError:
        beside = []
    close = get_close_matches(Path(path).name, beside, n=1)
    return (
        f"does not exist: did you mean {Path(path).with_name(close[0])}?"
        if close
        else "does not exist"
    )


def plain(text: str) -> str:
    """Text of any length with control characters escaped: what a terminal may show."""
    return printable(text, limit=10 * len(text))


def printable(text: str, *, limit: int = 200) -> str:
    """Return the text with control characters escaped and cut to ``limit`` characters.

    Names in files may hold anything, also what a terminal would obey.
    """
    cut = text[: limit + 1]  # each character is at least one when shown
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)
    return shown if len(shown) <= limit and len(cut) == len(text) else shown[: limit - 1] + "…"
