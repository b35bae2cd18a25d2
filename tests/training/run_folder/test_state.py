from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rankscope.errors import RankscopeError
from rankscope.training.adapters.cycles import Cycles
from rankscope.training.config import Config
from rankscope.training.model import LanguageModel
from rankscope.training.run_folder.state import (
    Position,
    iter_states,
    load_state,
    newest_state,
    read_position,
    write_state,
)

MakeModel = Callable[..., LanguageModel]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path


def learning(model: LanguageModel) -> torch.optim.AdamW:
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-2, fused=True)


def learn(model: LanguageModel, optimizer: torch.optim.AdamW, tokens: torch.Tensor) -> None:
    model.loss(tokens).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad()


def test_a_loaded_state_learns_on_exactly_as_the_saved_one(
    run: Path,
    make_model: MakeModel,
    make_config: Callable[..., Config],
    tokens: torch.Tensor,
) -> None:
    model = make_model()
    optimizer = learning(model)
    learn(model, optimizer, tokens)
    write_state(run, model, optimizer, Position(1, 2.5), energies={})
    other = make_model({"seed": 99})
    other_optimizer = learning(other)
    load_state(run / "state" / "step-00000001", other, other_optimizer, Cycles(make_config()))
    for _ in range(3):
        learn(model, optimizer, tokens)
        learn(other, other_optimizer, tokens)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
    assert read_position(run / "state" / "step-00000001") == Position(1, 2.5)


def test_the_newest_two_states_are_kept(run: Path, make_model: MakeModel) -> None:
    model = make_model()
    for step in (3, 20, 100):
        write_state(run, model, learning(model), Position(step), energies={})
    assert [p.name for p in iter_states(run)] == ["step-00000100", "step-00000020"]


def test_a_damaged_state_is_passed_over_for_the_one_before(
    run: Path, make_model: MakeModel
) -> None:
    model = make_model()
    for step in (3, 20):
        write_state(run, model, learning(model), Position(step), energies={})
    (run / "state" / "step-00000020" / "model.safetensors").write_bytes(b"torn")
    state, warnings = newest_state(run)
    assert state == run / "state" / "step-00000003"
    assert len(warnings) == 1
    assert "model.safetensors is not what was written" in warnings[0]


def test_a_run_whose_states_are_all_damaged_is_not_started_over(
    run: Path, make_model: MakeModel
) -> None:
    model = make_model()
    for step in (3, 20):
        write_state(run, model, learning(model), Position(step), energies={})
        (run / "state" / f"step-{step:08d}" / "MANIFEST.json").unlink()
    with pytest.raises(RankscopeError, match=r"every state .* is damaged.*00000020.*00000003"):
        newest_state(run)


def test_a_run_without_states_has_none(run: Path) -> None:
    assert newest_state(run) == (None, [])


def test_energies_and_the_start_of_the_cycle_come_back(
    run: Path, make_model: MakeModel, make_config: Callable[..., Config]
) -> None:
    model, cycles = make_model(), Cycles(make_config())
    position = Position(7, starts={"q_proj": {"rank": 2, "captured_energy": 0.25}})
    energies = {"q_proj": torch.tensor([0.75, 0.25], dtype=torch.float64)}
    write_state(run, model, learning(model), position, energies=energies)
    load_state(run / "state" / "step-00000007", model, learning(model), cycles)
    assert cycles.starts == position.starts
    torch.testing.assert_close(cycles.energies, energies)
