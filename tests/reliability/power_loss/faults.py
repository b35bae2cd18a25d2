"""Faults planted in the source of a module: what a test of that module must find."""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Fault:
    """A module's source with something wrong in it."""

    name: str
    module: types.ModuleType
    source: str

    def __str__(self) -> str:
        return self.name


def without_flushes(module: types.ModuleType) -> list[Fault]:
    """The module without one of its calls of `flush` or `_flush`, for each of these."""
    source = inspect.getsource(module)
    faults = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Expr) and _is_flush(node.value):
                lines = source.splitlines(keepends=True)
                line = lines[node.lineno - 1]
                lines[node.lineno - 1] = line[: node.col_offset] + "pass\n"
                name = f"{function.name} without {line.split('#')[0].strip()}"
                faults.append(Fault(name, module, "".join(lines)))
    return faults


def altered(module: types.ModuleType, name: str, old: str, new: str) -> Fault:
    """The module with other text at one place."""
    source = inspect.getsource(module)
    if source.count(old) != 1:
        raise ValueError(f"{name}: {old!r} is in {module.__name__} {source.count(old)} times")
    return Fault(name, module, source.replace(old, new))


@contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """Let the functions of the module behave as its altered source says, whoever calls them."""
    path = Path(str(fault.module.__file__))
    names = {"__name__": fault.module.__name__}
    exec(compile(fault.source, str(path), "exec", dont_inherit=True), names)
    wrong = dict(_functions(names, fault.module.__name__))
    with pytest.MonkeyPatch.context() as patch:
        for name, function in _functions(vars(fault.module), fault.module.__name__):
            if function.__code__ != wrong[name].__code__:
                patch.setattr(function, "__code__", wrong[name].__code__)
        yield


def _is_flush(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("flush", "_flush")


def _functions(
    names: dict[str, object], module: str, above: str = ""
) -> Iterator[tuple[str, types.FunctionType]]:
    """Functions and methods of a module, also those inside of decorators."""
    for name, value in list(names.items()):
        value = inspect.unwrap(value) if callable(value) else value  # type: ignore[arg-type]
        if isinstance(value, type) and value.__module__ == module and not above:
            yield from _functions(dict(vars(value)), module, f"{name}.")
        elif isinstance(value, types.FunctionType) and value.__module__ == module:
            yield above + name, value
