"""The law of the account, held for every checkpoint that a test of this folder reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from rankscope.checkpoints import assembly
from rankscope.checkpoints.account import UNREADABLE, account_of, roots
from rankscope.checkpoints.contents import Accounted, Skip
from rankscope.checkpoints.families.names import plain_name
from tests.checkpoints.remote_fixtures import cache, site  # noqa: F401, fixtures


@pytest.fixture(autouse=True)
def every_tensor_is_in_one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check each account as it is made: whatever layout, family or shape it is of."""

    def checked(stored: Iterable[Any], classed: Any, parameters: Any, skips: Any) -> Any:
        stored, parameters, skips = list(stored), list(parameters), list(skips)
        account, unnamed = account_of(stored, classed, parameters, skips)
        held = {(tensor.paths[0], tensor.name) for tensor in stored}
        unreadable = {(s.path, s.tensor) for s in skips if s.reason == UNREADABLE}
        entries = [(one.path, one.tensor) for one in account]
        assert len(entries) == len(set(entries)) and set(entries) == held | unreadable
        kinds = {(one.path, one.tensor): one.kind for one in account}
        for parameter in parameters:
            for root in () if parameter.tensor is None else roots(parameter.tensor):
                assert kinds[root.paths[0], root.name] in ("matrix", "part of"), root.name
        for one in account:
            assert one.reason, one.tensor
            assert one.kind != "not understood" or is_said(one, (*skips, *unnamed)), one
        return account, unnamed

    monkeypatch.setattr(assembly, "account_of", checked)


def is_said(one: Accounted, skips: Iterable[Skip]) -> bool:
    """Whether a skip speaks of a tensor: in the same words, or of a module around it."""
    path = f".{plain_name(one.tensor)}"
    for skip in skips:
        module = skip.tensor.removesuffix(".base_layer").partition(".experts")[0]
        of_experts = skip.reason == "target-parameters" and "expert" in path
        named = bool(skip.tensor) and skip.tensor in one.reason
        if of_experts or named or skip.message in one.reason or f".{module}" in path:
            return True
    return False
