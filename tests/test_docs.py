import re
from pathlib import Path
from typing import get_args

import pytest

from rankscope.checkpoints.contents import Class
from rankscope.checkpoints.families.family_files import SPLITS, families, read_family
from rankscope.checkpoints.layouts import LAYOUTS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*LAYOUTS, *families()])
def test_the_page_on_checkpoints_has_every_layout_and_family(name: str) -> None:
    assert f"| `{name}` |" in PAGE


def test_the_page_on_checkpoints_has_no_others() -> None:
    before, _, codes = PAGE.partition("\n## Reason codes\n")  # which tests/reliability compares
    others = before + codes.partition("\n## ")[2]
    assert set(re.findall(r"^\| `([\w-]+)` \|", others, re.MULTILINE)) - {
        *LAYOUTS,
        *families(),
    } == {"split", *SPLITS}


def test_the_family_that_the_page_shows_can_be_read(tmp_path: Path) -> None:
    (table,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "my.toml").write_text(table)
    family = read_family(tmp_path / "my.toml")
    assert family.name == "my-model"
    assert family.role_of("h.0.experts.3.w1") == "gate"
    fused = family.fused_in("h.0.attn.qkv")
    assert fused is not None and fused.parts == ("q", "k", "v")
    assert family.axes_of("h.0.attn.W_Q", 3) == ("out", "in", "out")
    assert family.twice == {"mlp.fc_in": "mlp.fc_out"}
    assert [table.name for table in family.factors] == ["mine"]


@pytest.mark.parametrize("kind", get_args(Class))
def test_the_page_and_the_readme_say_what_is_in_every_class(kind: str) -> None:
    assert f"\n| {kind} |" in PAGE
    assert f"*{kind}*" in (ROOT / "README.md").read_text(encoding="utf-8")
