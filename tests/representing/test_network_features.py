"""What is summed at each place is what transformers has there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import AutoModelForCausalLM

from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.errors import RankscopeError
from rankscope.evaluation.libraries import quiet_transformers
from rankscope.evaluation.open_model import OpenOptions, open_text_model
from rankscope.representations.feature_sums import BLOCKS, FeatureSums
from rankscope.representing import network_features
from rankscope.representing.collected import At, Collected, Place
from rankscope.representing.network_features import collect, sums_of
from rankscope.representing.places import taps_of
from rankscope.representing.probe_windows import Probe, ProbeOptions, make_probe
from rankscope.scoring.text_model import TextModel
from tests.evaluation.models import (
    CAUSAL,
    DOCUMENTS,
    only_checkpoint,
    write_hugging_face,
    write_own_run,
)

TEXTS = [f"{i} {text}" for i in range(5) for text in DOCUMENTS]
Opened = tuple[TextModel, list[Collected], Probe]


def looked_into(folder: Path, at: At = "block", *, features: str = "all") -> Opened:
    return looked_into_of(*only_checkpoint(folder), at, features=features)


def looked_into_of(checkpoint: Checkpoint, run: Run, at: At, *, features: str = "all") -> Opened:
    model = open_text_model(checkpoint, run, OpenOptions())
    assert model.network is not None
    options = ProbeOptions(features, kept=50)  # type: ignore[arg-type]
    probe = make_probe(model.encoder, TEXTS, options, 400 if features == "all" else 20, 12)
    taps = taps_of(model.network.module, at, checkpoint.contents.parameters.values())
    return model, list(collect(model, taps, probe)), probe


def features_of(
    probe: Probe, states: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """Features window by window, their blocks, and which of them are kept."""
    found, blocks, kept = [], [], []
    for window in probe.windows:
        with torch.inference_mode():
            hidden = states(torch.from_numpy(window.ids)[None])[0]
        found.append(hidden[torch.from_numpy(window.counted)].double().numpy())
        blocks += [window.block] * len(window.counted)
        kept += np.isin(window.counted, window.kept).tolist()
    return np.concatenate(found), np.array(blocks), np.array(kept)


def check(one: Collected, probe: Probe, states: Callable[[torch.Tensor], torch.Tensor]) -> None:
    x, blocks, kept = features_of(probe, states)
    size = np.abs(x).max()
    np.testing.assert_allclose(one.kept, x[kept], atol=2e-5 * size)
    for block in range(BLOCKS):
        mine = x[blocks == block]
        sums = one.sums[block]
        assert sums.count == len(mine)
        if len(mine):
            np.testing.assert_allclose(sums.mean, mine.mean(axis=0), atol=2e-5 * size)
            centred = mine - mine.mean(axis=0)
            scale = size**2 * len(mine)
            np.testing.assert_allclose(sums.scatter, centred.T @ centred, atol=2e-5 * scale)


@pytest.mark.parametrize("make", CAUSAL)
def test_blocks_give_the_hidden_states_of_transformers(make: str, tmp_path: Path) -> None:
    theirs = write_hugging_face(tmp_path, make)
    _, found, probe = looked_into(tmp_path)
    layers = [(-1, "embedding"), (0, "block"), (1, "block"), (2, "final")]
    assert [one.place for one in found] == [Place(*place) for place in layers]
    states = (0, 1, None, 2)  # transformers does not show the last block's output before the norm
    for one, index in zip(found, states, strict=True):
        if index is not None:
            check(one, probe, lambda ids, index=index: hidden_states(theirs, ids)[index])


def hidden_states(model: Any, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    found: tuple[torch.Tensor, ...] = model(ids, output_hidden_states=True).hidden_states
    return found


def seen(model: Any, module: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """What a module gives, by a hook of our own on somebody else's model."""

    def run(ids: torch.Tensor) -> torch.Tensor:
        caught = []
        hook = model.get_submodule(module).register_forward_hook(
            lambda _, given, out: caught.append(out[0] if isinstance(out, tuple) else out)
        )
        model(ids)
        hook.remove()
        return caught[0]

    return run


@pytest.mark.parametrize(
    ("make", "at", "module"),
    [
        ("llama", "attention", "model.layers.1.self_attn"),
        ("llama", "mlp", "model.layers.1.mlp"),
        ("llama", "block", "model.layers.1"),
        ("gpt2", "attention", "transformer.h.1.attn"),
        ("gpt2", "mlp", "transformer.h.1.mlp"),
        ("gpt_neox", "attention", "gpt_neox.layers.1.attention"),
        ("gpt_neox", "mlp", "gpt_neox.layers.1.mlp"),
    ],
)
def test_attention_and_mlp_are_what_they_add(
    make: str, at: At, module: str, tmp_path: Path
) -> None:
    theirs = write_hugging_face(tmp_path, make)
    _, found, probe = looked_into(tmp_path, at)
    one = next(one for one in found if one.place == Place(1, at))
    check(one, probe, seen(theirs, module))


@pytest.mark.slow
def test_our_checkpoint_with_a_live_adapter_is_that_of_transformers_and_peft(
    tmp_path: Path,
) -> None:
    torch.set_num_threads(1)
    run = write_own_run(tmp_path / "run")
    folder = run.checkpoints[-1].path
    with quiet_transformers():
        base = AutoModelForCausalLM.from_pretrained(folder)
        theirs = PeftModel.from_pretrained(base, folder / "adapter").eval()
    for at, name in (("block", "layers.0"), ("attention", "layers.1.self_attn")):
        _, found, probe = looked_into_of(run.checkpoints[-1], run, at)  # type: ignore[arg-type]
        layer = int(name[7])
        one = next(one for one in found if one.place == Place(layer, at))
        check(one, probe, seen(theirs, f"base_model.model.model.{name}"))


def test_last_tokens_are_the_last_of_each_window(tmp_path: Path) -> None:
    theirs = write_hugging_face(tmp_path, "llama")
    _, found, probe = looked_into(tmp_path, features="last")
    assert sum(sums.count for sums in found[1].sums) == 20
    check(found[1], probe, seen(theirs, "model.layers.0"))


def test_in_several_passes_the_same_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_hugging_face(tmp_path, "llama")
    _, once, _ = looked_into(tmp_path)
    runs = []
    real = network_features._run
    monkeypatch.setattr(network_features, "sums_budget", lambda _: 8 * 16**2 * (BLOCKS + 3) * 2)
    monkeypatch.setattr(
        network_features, "_run", lambda *args: (runs.append(len(args[1])), real(*args))
    )
    _, several, _ = looked_into(tmp_path)
    assert set(runs[1:]) == {2}  # two places at a time, after all widths were looked at
    for one, other in zip(once, several, strict=True):
        assert one.place == other.place
        np.testing.assert_array_equal(one.kept, other.kept)
        np.testing.assert_array_equal(one.sums[0].scatter, other.sums[0].scatter)


@pytest.mark.parametrize("rows", [0, 3, 40])
def test_sums_of_a_batch_are_those_of_numpy(rows: int, rng: np.random.Generator) -> None:
    x = rng.normal(size=(40, 6)) + 3
    x[5] = 0
    x[:rows:2, 2] = np.nan
    theirs, mine = FeatureSums.of(x), sums_of(torch.from_numpy(x))
    assert (mine.count, mine.nonfinite, mine.nonzero) == (
        theirs.count,
        theirs.nonfinite,
        theirs.nonzero,
    )
    for name in ("mean", "scatter", "directions", "norms", "longest"):
        np.testing.assert_allclose(getattr(mine, name), getattr(theirs, name), rtol=1e-13)


def test_where_every_feature_is_nan_there_is_nothing_to_sum() -> None:
    found = sums_of(torch.full((3, 4), torch.nan))
    assert (found.count, found.nonfinite) == (0, 3)


def test_a_network_without_blocks_is_named(tmp_path: Path) -> None:
    write_hugging_face(tmp_path, "llama")
    checkpoint, run = only_checkpoint(tmp_path)
    model = open_text_model(checkpoint, run, OpenOptions())
    assert model.network is not None
    module: Any = model.network.module
    with pytest.raises(RankscopeError, match="no block has any that is known") as caught:
        taps_of(module, "mlp", ())
    assert caught.value.reason == "no-place"
    module.config.num_hidden_layers = 5
    with pytest.raises(RankscopeError, match="no list of 5 blocks"):
        taps_of(module, "block", ())
