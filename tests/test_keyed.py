from __future__ import annotations

import torch

from rankscope.keyed import keyed_generator


def draw(seed: int, *key: str | int) -> list[float]:
    values: list[float] = torch.rand(8, generator=keyed_generator(seed, *key)).tolist()
    return values


def test_a_key_always_gives_the_same_draws_whatever_happened_before() -> None:
    before = draw(1, "batch", 3)
    torch.rand(100)
    draw(1, "batch", 2)
    assert draw(1, "batch", 3) == before


def test_another_seed_purpose_or_number_gives_other_draws() -> None:
    keys: list[tuple[int, str, int]] = [(1, "a", 0), (2, "a", 0), (1, "b", 0), (1, "a", 1)]
    assert len({tuple(draw(*key)) for key in keys}) == len(keys)


def test_keys_are_not_glued_together() -> None:
    assert draw(1, "ab", "c") != draw(1, "a", "bc")
    assert draw(1, "a", 1) != draw(1, "a", "1")


def test_the_global_generator_is_left_alone() -> None:
    state = torch.random.get_rng_state()
    draw(1, "batch", 3)
    assert torch.equal(torch.random.get_rng_state(), state)
