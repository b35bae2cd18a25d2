"""Repeated blocks: what is found out about the first of them holds for all, and only for those."""

import re
from collections.abc import Hashable, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents, Heads
from rankscope.checkpoints.families import neighbours
from rankscope.checkpoints.families.family import Family
from rankscope.checkpoints.families.family_files import families
from rankscope.checkpoints.families.names import alike_in_digits, parts_in
from rankscope.checkpoints.families.recognition import TowerFamilies
from rankscope.checkpoints.families.repeats import first_alike
from rankscope.checkpoints.options import DEFAULT
from rankscope.checkpoints.tensors import StoredTensor

Shapes = Mapping[str, tuple[int, ...]]

ATTENTION = {f"self_attn.{name}_proj.weight": (8, 8) for name in "qkvo"}
EXPERT = {"gate_proj.weight": (4, 8), "up_proj.weight": (4, 8), "down_proj.weight": (8, 4)}
MIXTURE = {
    **ATTENTION,
    **{f"mlp.experts.{i}.{name}": shape for i in range(3) for name, shape in EXPERT.items()},
    "mlp.gate.weight": (3, 8),
    "input_layernorm.weight": (8,),
}
DENSE = ATTENTION | {f"mlp.{name}": shape for name, shape in EXPERT.items()}


def layers(*blocks: Shapes, path: str = "model.layers") -> dict[str, tuple[int, ...]]:
    return {
        f"{path}.{i}.{name}": shape
        for i, block in enumerate(blocks)
        for name, shape in block.items()
    }


BIASED = {"fc.weight": (8, 8), "fc.bias": (8,), "out.weight": (16, 8), "out.bias": (8,)}
TURNED = BIASED | {"out.weight": (8, 16)}
CASES: dict[str, Shapes] = {
    "mixture": layers(MIXTURE, MIXTURE, MIXTURE),
    "first layer dense": layers(DENSE, MIXTURE, MIXTURE),
    "one expert of another shape": layers(
        MIXTURE, MIXTURE | {"mlp.experts.1.up_proj.weight": (5, 8)}, MIXTURE
    ),
    "another order": layers(MIXTURE, dict(reversed(MIXTURE.items()))),
    "a gate of attention in one layer": layers(
        ATTENTION, ATTENTION | {"self_attn.gate_proj.weight": (8, 8)}, ATTENTION
    ),
    "square maps that others turn": layers(BIASED, TURNED, BIASED, path="h"),
    "factors of one another": {f"net.{i}.weight": (12, 3) for i in range(2)},
    "bare factors in a list": {f"net.{i}": (12, 3) for i in range(2)},
    "factors in every layer": layers(
        *[{"attn.left": (8, 2), "attn.right": (2, 8), "norm.weight": (8,)}] * 3
    ),
    "convolutions behind one another": {
        f"stages.{i}.conv.weight": shape
        for i, shape in enumerate([(16, 1, 3, 3), (16, 16, 3, 3), (16, 1, 3, 3)])
    },
    "numbers in the table of a family": {
        f"features.{stage}.{block}.mlp.{i}.weight": (8, 8)
        for stage in (1, 3)
        for block in range(2)
        for i in (0, 3)
    },
    "stacks of stacks": {
        f"stages.{a}.blocks.{b}.{name}": shape
        for a in range(2)
        for b in range(2)
        for name, shape in DENSE.items()
    },
}


def contents(shapes: Shapes, **config: Any) -> Contents:
    tensors = {
        name: StoredTensor("/nowhere", name, "float32", shape, place * 10_000)
        for place, (name, shape) in enumerate(shapes.items())
    }
    return contents_of("any", tensors, config, DEFAULT)


def alone(held: Mapping[str, Hashable], *_: object) -> dict[str, str]:
    """Every tensor by itself, as if no block repeated another."""
    return {name: name for name in held}


@pytest.mark.parametrize("shapes", CASES.values(), ids=CASES)
def test_repeated_blocks_are_read_as_if_each_were_alone(
    shapes: Shapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "hidden_size": 8}
    found = contents(shapes, **heads)
    monkeypatch.setattr(neighbours, "first_alike", alone)
    expected = contents(shapes, **heads)
    for one in fields(Contents):
        if one.compare:
            assert getattr(found, one.name) == getattr(expected, one.name), one.name


def test_repeated_blocks_have_the_heads_that_the_config_states_for_each() -> None:
    sizes = {"hidden_size": 8, "num_key_value_heads": 2}
    found = contents(layers(*[ATTENTION] * 3), **sizes, num_attention_heads_per_layer=[4, 2, 4])
    expected = {0: Heads(4, 2, 2), 1: Heads(2, 2, 4), 2: Heads(4, 2, 2)}
    assert {(one.layer, one.heads) for one in found.parameters.values()} == {*expected.items()}


@pytest.mark.parametrize("seed", range(20))
def test_two_blocks_that_may_change_places_are_alike_and_no_others(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"h.{i}.{name}" for i in range(4) for name in ("a.w", "b.0.w", "b.1.w")]
    held = {name: int(rng.integers(2)) for name in names if rng.random() < 0.9}
    found = first_alike(held)
    blocks = {name.split(".")[1] for name in held}

    def may_change(one: str, other: str) -> bool:
        swap = {one: other, other: one}
        moved = {
            ".".join(["h", swap.get(name.split(".")[1], name.split(".")[1]), *name.split(".")[2:]])
            for name in held
        }
        back = {
            name: value
            for name, value in held.items()
            if (parts := name.split("."))
            and held.get(".".join(["h", swap.get(parts[1], parts[1]), *parts[2:]])) == value
        }
        return moved == {*held} and back == held

    for name, first in found.items():
        _, number, rest = name.split(".", 2)
        earliest = min(block for block in blocks if may_change(block, number) or block == number)
        assert first == f"h.{earliest}.{rest}"


def test_a_number_that_a_rule_may_look_at_makes_a_block_stand_for_itself() -> None:
    held = {f"h.{i}.w": 1 for i in range(4)}
    found = first_alike(held, lambda number: number == "2")
    assert [*found.values()] == ["h.0.w", "h.0.w", "h.2.w", "h.0.w"]


@pytest.mark.parametrize("name", [*families()])
def test_numbers_that_a_family_does_not_tell_apart_have_one_answer(name: str) -> None:
    family = families()[name]
    ends = (*family.roles, *family.fused, *family.transposed, *family.ignored, *family.axes)
    alike = [str(n) for n in range(12) if not family.tells_apart(str(n))]
    for end in ends:
        stems = {
            end.replace("*", "x"),
            re.sub(r"(?<![^.])\d+(?![^.])", "{}", end.replace("*", "x")),
        }
        for stem in stems:
            answers = {
                (
                    family.role_of(f"h.{n}.{stem.replace('{}', n)}"),
                    family.fused_in(f"h.{n}.{stem.replace('{}', n)}"),
                    family.ignores(f"h.{n}.{stem.replace('{}', n)}"),
                )
                for n in alike
            }
            assert len(answers) <= 1, stem


def test_a_table_for_some_numbers_tells_all_apart() -> None:
    plain = families()["generic"]
    assert not plain.tells_apart("7")
    assert replace(plain, roles={"net.7.up": "up"}).tells_apart("7")
    assert replace(plain, axes={"net.7.up": ("out", "in")}).tells_apart("7")
    assert replace(plain, roles={"net.1*.up": "up"}).tells_apart("7")
    stated = {one.name: getattr(plain, one.name) for one in fields(Family)}
    with_tower = TowerFamilies(**stated, others={"eyes": replace(plain, roles={"7.up": "up"})})
    assert with_tower.tells_apart("7")
    assert not with_tower.tells_apart("6")


@pytest.mark.parametrize("seed", range(20))
def test_no_part_with_a_letter_is_overlooked(seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = ["h", "w1", "w2", "lora_A", "0", "17", "3", "a\nb", "é1", "x٣"]
    names = {".".join(rng.choice(words[: 7 + seed % 4], size=2)) for _ in range(5)}
    names |= {"h.w1", "h.w2"}
    every = {part for name in names for part in name.split(".")}
    found = parts_in(names)
    assert {part for part in every if not part.isdecimal()} <= found <= every
    groups = alike_in_digits(names)
    assert sorted(name for group in groups.values() for name in group) == sorted(names)
    for common, group in groups.items():
        assert {re.sub("[0-9]", "0", name) for name in group} == {common}
