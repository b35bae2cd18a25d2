"""`Skip`: what is left out, and why; loads nothing, for calls that have nothing else to do."""

from __future__ import annotations

from dataclasses import dataclass

from rankscope.addresses import shown
from rankscope.errors import RankscopeError


@dataclass(frozen=True)
class Skip:
    """Something that is left out, and why; also a note, which costs nothing."""

    path: str
    tensor: str
    reason: str  # a short code, such as "adapter-incomplete"
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", shown(self.path))

    def __str__(self) -> str:
        error = RankscopeError(self.message, path=self.path or None, tensor=self.tensor or None)
        return f"{error} [{self.reason}]"
