from __future__ import annotations

import re

import pytest

from rankscope.errors import RankscopeError
from rankscope.evaluation.prefix import Vocabulary, prefix_token

IDS = {"<s>": 0, "</s>": 1, "the": 2, "7": 3, "\n": 4}


@pytest.mark.parametrize(
    ("wanted", "bos", "eos", "expected"),
    [
        ("auto", 0, 1, (0, "BOS <s>")),
        ("auto", None, 1, (1, "EOS </s>")),
        ("auto", 1, 1, (1, "EOS </s>")),
        ("auto", 0, None, (0, "BOS <s>")),
        ("bos", 1, 1, (1, "BOS </s>")),
        ("bos", 0, 1, (0, "BOS <s>")),
        ("eos", 0, 1, (1, "EOS </s>")),
        ("none", 0, 1, (None, "none")),
        ("the", 0, 1, (2, "token the")),
        ("7", 0, 1, (3, "token 7")),
        ("2", 0, 1, (2, "id 2 the")),
        ("\n", 0, 1, (4, "token \\n")),
    ],
)
def test_the_prefix_is_as_asked_and_named(
    wanted: str, bos: int | None, eos: int | None, expected: tuple[int | None, str]
) -> None:
    assert prefix_token(wanted, Vocabulary(IDS, bos, eos)) == expected


@pytest.mark.parametrize(
    ("wanted", "named"),
    [("auto", "EOS"), ("bos", "BOS"), ("eos", "EOS"), ("<|x|>", "'<|x|>'"), ("9", "'9'")],
)
def test_a_missing_token_is_one_line_with_advice(wanted: str, named: str) -> None:
    with pytest.raises(RankscopeError, match=rf"{re.escape(named)}.*`prefix`.*none"):
        prefix_token(wanted, Vocabulary(IDS, None, None))
