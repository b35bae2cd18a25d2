"""The one exception for what a user can put right, and the one warning.

    Exception
    └── RankscopeError          the input: a file, a tensor, a folder
        └── WrongSettingError   what was asked for: an option, a setting, a name
    UserWarning
    └── RankscopeWarning        the work goes on, and something is worth a line

Messages name settings as Python does, in backquotes: choose another `out`. The command line shows
each as the option that sets it.
"""

from __future__ import annotations

from pathlib import Path


class RankscopeError(Exception):
    """Something about the input that the user can put right.

    Parameters
    ----------
    message
        What was given, what was wrong and what to do, as one line.
    path
        The file or folder at fault; printed before the message.
    tensor
        The name of the tensor at fault; printed between the two.
    reason
        A short code for lists of what was skipped.

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
        self.path = None if path is None else str(path)
        self.tensor = tensor
        self.reason = reason

    def __str__(self) -> str:
        where = [] if self.path is None else [printable(self.path)]
        if self.tensor is not None:
            where.append(repr(printable(self.tensor)))
        return ": ".join([*where, self.message])


class WrongSettingError(RankscopeError):
    """Something that was asked for and cannot be: the command line ends with 2, for wrong use."""


class RankscopeWarning(UserWarning):
    """Something worth a line although the work goes on, such as what was skipped."""


def printable(text: str, *, limit: int = 200) -> str:
    """Escape control characters and cut to ``limit``: names in files may hold anything."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
