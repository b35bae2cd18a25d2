"""What a family says of a module is found once for modules that differ in numbers only."""

import random
from collections.abc import Iterator
from fnmatch import fnmatchcase

import pytest

from rankscope.checkpoints.families.family import Family, Fused
from rankscope.checkpoints.families.family_files import families
from rankscope.checkpoints.families.names import INNER, MARK, plain_name


def fits(module: str, end: str) -> bool:
    """Whether a path ends with these parts, part by part."""
    parts, wanted = module.split("."), end.split(".")
    tail = parts[len(parts) - len(wanted) :] if len(parts) >= len(wanted) else []
    return bool(tail) and all(map(fnmatchcase, tail, wanted))


def holds(module: str, inner: str) -> bool:
    """Whether these parts are somewhere in a path."""
    parts = module.split(".")
    return any(fits(".".join(parts[: end + 1]), inner) for end in range(len(parts)))


def iter_modules(family: Family, rng: random.Random) -> Iterator[str]:
    """Paths that end as the family says, and the same with other numbers in them."""
    numbers = ("0", "1", "2", "3", "4", "12", "127", "01")
    for end in (*family.roles, *family.fused, *family.transposed, *family.ignored):
        for _ in range(3):
            parts = [
                rng.choice(numbers) if p in ("*", "0", "1", "2") else p for p in end.split(".")
            ]
            inner = ".".join(parts).replace("*", rng.choice(("x", "7", "")))
            yield f"{rng.choice(('', 'model.', 'layers.5.', '3.', 'experts.77.'))}{inner}"
            yield f"model.layers.{rng.choice(numbers)}.{end.replace('*', '9')}"


@pytest.mark.parametrize("name", families())
def test_the_pattern_of_a_name_decides(name: str) -> None:
    family = families()[name]
    modules = list(iter_modules(family, random.Random(name)))
    for module in [*modules, *modules[::-1]]:
        role = next((role for end, role in family.roles.items() if fits(module, end)), "other")
        fused = next((how for end, how in family.fused.items() if fits(module, end)), None)
        assert family.role_of(module) == role, module
        assert family.fused_in(module) == fused, module
        assert family.is_transposed(module) == any(fits(module, e) for e in family.transposed)
        assert family.ignores(module) == any(holds(module, inner) for inner in family.ignored)


def test_numbers_of_a_table_are_told_apart_from_others() -> None:
    mine = Family("mine", roles={"mlp.0": "up", "mlp.2": "down"})
    starred = Family("starred", roles={"1*": "q"})
    assert [mine.role_of(f"h.{i}.mlp.{i}") for i in range(4)] == ["up", "other", "down", "other"]
    assert [starred.role_of(f"h.{i}") for i in (1, 2, 12)] == ["q", "other", "q"]
    plain = Family("plain", roles={"*.w": "k"}, fused={"5.qkv": Fused(("q", "k", "v"))})
    assert [plain.role_of(f"a.{i}.w") for i in (3, 5, 7)] == ["k"] * 3
    assert [plain.fused_in(f"a.{i}.qkv") is None for i in (3, 5, 7)] == [True, False, True]


def test_wrappers_are_recognised_by_what_all_of_them_have() -> None:
    assert all(MARK in wrapper for wrapper in INNER)
    for wrapper in INNER:
        assert plain_name(f"module.a.{wrapper}b.weight") == "a.b.weight"
