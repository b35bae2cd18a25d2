"""Optional packages that some commands need."""

from __future__ import annotations

from importlib.util import find_spec

from rankscope.errors import RankscopeError


def require_installed(*modules: str, what: str, extra: str) -> None:
    """Raise `RankscopeError` that says what to install if a module is not there."""
    for module in modules:
        if find_spec(module) is None:
            raise RankscopeError(f'{what} needs {module}: pip install "rankscope[{extra}]"')
