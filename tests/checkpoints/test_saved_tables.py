"""Whatever trainers put into a file, its networks are measured and every tensor has a class."""

import collections
import copy
import io
import itertools
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from rankscope.checkpoints.account import Classed
from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.files.opened_file import Opened
from rankscope.checkpoints.files.saved_tables import sorted_tables
from rankscope.checkpoints.files.torch_file import open_saved
from rankscope.checkpoints.files.weights_file import open_file
from rankscope.checkpoints.layouts import layout_of
from rankscope.errors import RankscopeError

Tensors = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(1207)


def network(*widths: int) -> nn.Module:
    pairs = itertools.pairwise(widths)
    return nn.Sequential(
        collections.OrderedDict((f"fc{i}", nn.Linear(a, b)) for i, (a, b) in enumerate(pairs))
    )


def trained(model: nn.Module, kind: Any = torch.optim.Adam, **options: Any) -> dict[str, Any]:
    """State of an optimizer after a step."""
    optimizer = kind(model.parameters(), lr=1e-3, **options)
    width = next(model.parameters()).shape[1]
    model(torch.randn(4, width)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def moved(table: Tensors, by: float = 0.05) -> Tensors:
    """Weights slightly moved from these, like an average of them."""
    return {name: tensor + by * torch.randn_like(tensor) for name, tensor in table.items()}


def opened(path: Path, found: Any, **options: Any) -> Opened:
    torch.save(found, path / "saved.pt")
    return sorted_tables(open_saved(path / "saved.pt"), **options)


def iter_tensors(found: Any, seen: set[int]) -> Iterator[torch.Tensor]:
    """All tensors in dicts, lists and tuples, each container once."""
    if isinstance(found, torch.Tensor):
        yield found
    elif isinstance(found, dict | list | tuple) and id(found) not in seen:
        seen.add(id(found))
        for held in found.values() if isinstance(found, dict) else found:
            yield from iter_tensors(held, seen)


def names_of(aside: tuple[Classed, ...], kind: str) -> set[str]:
    return {one.tensor.name for one in aside if one.kind == kind}


OPTIMIZERS = {
    "Adam": (torch.optim.Adam, {}),
    "Adam with maxima": (torch.optim.Adam, {"amsgrad": True}),
    "SGD": (torch.optim.SGD, {"momentum": 0.9}),
    "Adadelta": (torch.optim.Adadelta, {}),
    "Adagrad": (torch.optim.Adagrad, {}),
    "Rprop": (torch.optim.Rprop, {}),
    "LBFGS without a step": (None, {}),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("key", ["opt", "optG", "g_optim", "last_optimizer_state", "x", "solver"])
def test_an_optimizer_is_recognised_by_content_whatever_its_key(
    kind: str, key: str, tmp_path: Path
) -> None:
    model = network(6, 8, 4)
    make, options = OPTIMIZERS[kind]
    state = {"state": {}, "param_groups": []} if make is None else trained(model, make, **options)
    saved = {"net": model.state_dict(), key: state, "epoch": 3}
    found = opened(tmp_path, saved)
    assert set(found.tensors) == {f"net.{name}" for name in model.state_dict()}
    assert not found.skips
    assert {one.kind for one in found.aside} <= {"optimizer"}
    assert len(found.tensors) + len(found.aside) == len(list(iter_tensors(saved, set())))


@pytest.mark.parametrize(
    "placed",
    [
        lambda m, o: {"state": {"model": m, "optimizers": {"DecoupledAdamW": o}}, "rng": []},
        lambda m, o: {"agent": {"policy": m, "learner": {"deep": {"a": o}}}},
        lambda m, o: {"model": m, "all": [o, o]},
        lambda m, o: {"weights_and_more": [m, o]},
        lambda m, o: {"app": (m, {"inner": o})},
        lambda m, o: {"state_dict": m, "callbacks": {"x": {"o": o}}, "loops": {}},
    ],
)
def test_an_optimizer_is_recognised_at_any_depth(placed: Any, tmp_path: Path) -> None:
    model = network(6, 8)
    found = opened(tmp_path, placed(model.state_dict(), trained(model)))
    assert [t.shape for t in found.tensors.values()] == [(8, 6), (8,)]
    assert {one.kind for one in found.aside} == {"optimizer"} and not found.skips


def test_moments_by_name_are_an_optimizer_even_without_groups(tmp_path: Path) -> None:
    weight = torch.randn(8, 6)
    moments = {"fc.weight": {"exp_avg": weight, "exp_avg_sq": weight, "step": torch.tensor(3.0)}}
    found = opened(tmp_path, {"state": {"model": {"fc.weight": weight}, "o": {"Lion": moments}}})
    assert list(found.tensors) == ["fc.weight"] and len(found.aside) == 3
    assert {one.kind for one in found.aside} == {"optimizer"}


@pytest.mark.parametrize("prefix", ["optim.state.", "optimizer.", "opt_state.mu.", "state."])
@pytest.mark.parametrize("last", ["", ".preconditioner", ".exp_avg"])
def test_a_flat_optimizer_is_recognised_by_the_weights_it_mirrors(
    prefix: str, last: str, tmp_path: Path
) -> None:
    weights = {"h.0.fc.weight": torch.randn(8, 6), "h.1.fc.weight": torch.randn(8, 6)}
    states = {f"{prefix}{name}{last}": torch.randn(8, 6) for name in weights}
    save_file(weights | states, tmp_path / "step_5.safetensors")
    torch.save(weights | states, tmp_path / "step_5.pt")
    for name in ("step_5.safetensors", "step_5.pt"):
        found = open_file(tmp_path / name)
        assert set(found.tensors) == set(weights), name
        assert names_of(found.aside, "optimizer") == set(states)


def test_a_flat_optimizer_may_lack_the_prefix_of_the_weights(
    tmp_path: Path,
) -> None:
    names = ("h.0.fc.kernel", "h.1.fc.kernel")
    weights = {f"params.{name}": torch.randn(8, 6) for name in names}
    states = {f"opt_state.0.{m}.{n}": torch.randn(8, 6) for m in ("mu", "nu") for n in names}
    save_file(weights | states, tmp_path / "step_5.safetensors")
    found = open_file(tmp_path / "step_5.safetensors")
    assert set(found.tensors) == set(weights)
    assert names_of(found.aside, "optimizer") == set(states)


def test_a_model_with_words_of_optimizers_in_its_names_stays_whole(tmp_path: Path) -> None:
    weights = {
        "state_encoder.fc.weight": torch.randn(8, 6),
        "fc.weight": torch.randn(4, 6),
        "optimizer_head.weight": torch.randn(8, 5),
        "schema.momentum.weight": torch.randn(8, 6),
        "target.weight": torch.randn(8, 6),
    }
    assert set(opened(tmp_path, weights).tensors) == set(weights)


@pytest.mark.parametrize(
    "key", ["ema", "model_ema", "averaged", "swa_model", "netG_ema", "target_net", "gradients"]
)
@pytest.mark.parametrize("prefix", ["", "module.", "ema_model.module."])
def test_a_second_copy_of_the_weights_is_not_measured(
    key: str, prefix: str, tmp_path: Path
) -> None:
    table = network(6, 8, 4).state_dict()
    copied = {prefix + name: torch.randn_like(t) for name, t in table.items()}
    copied |= {"n_averaged": torch.tensor(5)}
    found = opened(tmp_path, {key: copied, "net": table})
    assert set(found.tensors) == {f"net.{name}" for name in table}
    assert len(names_of(found.aside, "optimizer")) == len(copied)
    reason = next(one.reason for one in found.aside)
    assert key in reason and "net" in reason
    assert key in found.notes[0].message and not found.skips


@pytest.mark.parametrize("key", ["weights_bar", "smooth", "phi_bar", "snapshot"])
def test_a_copy_under_a_neutral_key_is_recognised_by_its_numbers(key: str, tmp_path: Path) -> None:
    table = network(32, 48, 32).state_dict()
    found = opened(tmp_path, {"net": table, key: moved(table)})
    assert set(found.tensors) == {f"net.{name}" for name in table}
    other = {name: torch.randn_like(tensor) for name, tensor in table.items()}
    found = opened(tmp_path, {"net": table, key: other})
    assert len(found.tensors) == 2 * len(table) and not found.aside


@pytest.mark.parametrize(
    ("one", "other"),
    [("actor", "critic"), ("qf1", "qf2"), ("G_AB", "G_BA"), ("netA", "netB"), ("net_0", "net_1")],
)
def test_networks_of_the_same_make_are_all_measured(one: str, other: str, tmp_path: Path) -> None:
    model = network(6, 8)
    table = model.state_dict()
    second = table if one == "netA" else network(6, 8).state_dict()
    second = {name: tensor.clone() for name, tensor in second.items()}
    found = opened(tmp_path, {one: table, other: second, f"{one}_opt": trained(model)})
    assert set(found.tensors) == {f"{key}.{name}" for key in (one, other) for name in table}


def test_an_average_alone_is_the_model(tmp_path: Path) -> None:
    table = network(6, 8).state_dict()
    assert set(opened(tmp_path, {"params_ema": table, "step": 3}).tensors) == {
        f"params_ema.{name}" for name in table
    }


@pytest.mark.parametrize(
    "form",
    [
        lambda name: f"model_ema.{name}",
        lambda name: f"model_ema.{name.replace('.', '')}",
        lambda name: f"ema_{name.replace('.', '_')}",
    ],
)
def test_an_average_within_a_state_dict_is_recognised_by_its_names(
    form: Any, tmp_path: Path
) -> None:
    table = {f"model.{name}": tensor for name, tensor in network(6, 8, 4).state_dict().items()}
    averages = {form(name.removeprefix("model.")): t.clone() for name, t in table.items()}
    found = opened(tmp_path, {"state_dict": table | averages})
    assert set(found.tensors) == set(table)
    assert names_of(found.aside, "optimizer") == set(averages)
    odd = {form("fc0.weight"): torch.randn(3, 3)}
    assert set(opened(tmp_path, {"state_dict": table | odd}).tensors) == {*table, *odd}


def test_an_average_in_a_list_is_a_copy_and_other_lists_are_reported(
    tmp_path: Path,
) -> None:
    table = network(6, 8, 4).state_dict()
    shadow = {"decay": 0.99, "shadow_params": [tensor.clone() for tensor in table.values()]}
    found = opened(tmp_path, {"model": table, "other": shadow})
    assert set(found.tensors) == set(table) and not found.skips
    assert len(names_of(found.aside, "optimizer")) == len(table)
    found = opened(tmp_path, {"model": table, "other": [torch.randn(5, 7), torch.randn(5)]})
    assert [skip.tensor for skip in found.skips] == ["other.0"]
    assert names_of(found.aside, "no linear map") == {"other.1"}
    for alone in ([torch.randn(4, 6)], {"shadow": [torch.randn(4, 6)], "bias": torch.randn(3)}):
        found = opened(tmp_path, alone)
        assert len(found.skips) == 1 and "in a list" in found.skips[0].message
        assert not any(len(tensor.shape) > 1 for tensor in found.tensors.values())


def test_numbers_beside_the_model_are_not_part_of_it(tmp_path: Path) -> None:
    table = network(6, 8).state_dict()
    beside = {
        "rng": torch.get_rng_state(),
        "buffer": {"observations": torch.randn(100, 6), "rewards": torch.randn(100)},
        "indices": {"order": torch.randint(9, (20, 3))},
        "best": torch.tensor(0.5),
    }
    found = opened(tmp_path, {"model": table, **beside})
    assert set(found.tensors) == set(table)
    assert names_of(found.aside, "not understood") == {"buffer.observations"}
    assert [skip.tensor for skip in found.skips] == ["buffer.observations"]
    assert names_of(found.aside, "no linear map") == {
        *("rng", "buffer.rewards", "indices.order", "best"),
    }


def test_data_beside_a_table_of_networks_is_not_part_of_them(tmp_path: Path) -> None:
    networks = {"pi": network(6, 8).state_dict(), "q": network(5, 7).state_dict()}
    replay = {"obs": torch.randn(100, 6), "act": torch.randn(100, 4), "done": torch.zeros(100)}
    found = opened(tmp_path, {"agent": networks, "replay": replay})
    names = {f"agent.{key}.{name}" for key, table in networks.items() for name in table}
    assert set(found.tensors) == names
    assert names_of(found.aside, "not understood") == {"replay.obs", "replay.act"}


def test_data_beside_a_list_of_networks_is_not_part_of_them(tmp_path: Path) -> None:
    networks = [network(6, 8).state_dict(), network(5, 7).state_dict()]
    found = opened(tmp_path, {"members": networks, "losses": torch.rand(100, 3)})
    names = {f"members.{i}.{name}" for i, table in enumerate(networks) for name in table}
    assert set(found.tensors) == names
    assert names_of(found.aside, "not understood") == {"losses"}


def test_parts_of_a_model_in_separate_tables_are_one_model(tmp_path: Path) -> None:
    head = {"weight": torch.randn(4, 8), "bias": torch.zeros(4)}
    found = opened(tmp_path, {"backbone": network(6, 8).state_dict(), "head": head})
    assert {"head.weight", "head.bias"} <= set(found.tensors) and not found.skips


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_weights_that_torch_packed_in_8_bits_are_not_understood(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(9, 6), torch.nn.Linear(6, 8))
    packed = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear})
    found = opened(tmp_path, packed.state_dict())
    assert set(found.tensors) >= {"0.weight"} and len(found.skips) == 1
    assert found.skips[0].tensor.startswith("1._packed_params")


def test_tables_in_lists_are_networks_prefixed_by_their_index(tmp_path: Path) -> None:
    ensemble = [network(6, 8).state_dict() for _ in range(3)]
    found = opened(tmp_path, {"members": ensemble})
    assert set(found.tensors) == {f"members.{i}.{name}" for i in range(3) for name in ensemble[0]}


def script_with(name: str, body: str) -> Any:
    """A class of a training script that can no longer be imported on reading."""
    module = types.ModuleType("gone_script")
    exec(body, module.__dict__)
    sys.modules["gone_script"] = module
    kind = module.__dict__[name]
    kind.__module__ = "gone_script"
    return kind


def test_weights_beside_closed_objects_of_a_script_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gone_script", None)
    kind = script_with("Config", "class Config:\n    def __init__(self): self.lr = 1e-3")
    table = network(6, 8).state_dict()
    torch.save({"state_dict": table, "config": kind()}, tmp_path / "step_5.pt")
    monkeypatch.setitem(sys.modules, "gone_script", None)
    contents = open_run(tmp_path / "step_5.pt")[5].contents
    assert set(contents.parameters) == {"fc0.weight"} and not contents.skips
    assert any("gone_script.Config" in note.message for note in contents.notes)


def test_a_module_that_was_saved_whole_is_read_without_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gone_script", None)
    body = (
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.model = torch.nn.Linear(6, 8)\n"
        "        self.norm = torch.nn.BatchNorm1d(8)\n"
        "        self.register_buffer('mask', torch.ones(5, 5))\n"
    )
    net = script_with("Net", body)()
    torch.save({"model": net, "ema": copy.deepcopy(net), "step": 3}, tmp_path / "whole.pt")
    monkeypatch.setitem(sys.modules, "gone_script", None)
    found = sorted_tables(open_saved(tmp_path / "whole.pt"))
    buffers = {name for name, _ in net.named_buffers()}
    assert set(found.tensors) == set(net.state_dict()) - buffers
    assert names_of(found.aside, "no linear map") == {f"model.{name}" for name in buffers}
    assert (found.tensors["model.weight"].read() == net.model.weight.detach().numpy()).all()
    assert not found.skips and "gone_script.Net" in found.notes[-1].message


def test_a_tensor_that_needs_code_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gone_script", None)
    kind = script_with("Packed", "import torch\nclass Packed(torch.Tensor): pass")
    odd = torch.randn(4, 6).as_subclass(kind)
    table = {"a.weight": torch.randn(4, 6), "b.weight": odd, "c._extra_state": io.BytesIO(b"x")}
    torch.save({"model": table}, tmp_path / "step_5.pt")
    monkeypatch.setitem(sys.modules, "gone_script", None)
    contents = open_run(tmp_path / "step_5.pt")[5].contents
    assert set(contents.parameters) == {"a.weight"}
    (skip,) = contents.skips
    assert skip.tensor == "b.weight" and "gone_script.Packed" in skip.message
    assert {one.tensor: one.kind for one in contents.account}["b.weight"] == "not understood"


def test_numpy_arrays_inside_a_pickle_are_reported(tmp_path: Path) -> None:
    table = {"a.weight": torch.randn(4, 6), "b.weight": np.ones((4, 6), np.float32)}
    torch.save({"model": table, "seen": np.arange(5)}, tmp_path / "step_5.pt")
    contents = open_run(tmp_path / "step_5.pt")[5].contents
    assert [(s.tensor, s.reason) for s in contents.skips] == [("b.weight", "unreadable")]
    kinds = {one.tensor: one.kind for one in contents.account}
    assert kinds["b.weight"] == "not understood" and kinds["seen"] == "no linear map"


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("how", ["script", "trace"])
def test_a_torchscript_archive_has_the_parameters_of_its_module(how: str, tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ModuleDict({"x": nn.Linear(8, 3)})["x"]
    )
    model.register_buffer("mask", torch.randn(5, 5))
    model.eval()
    made = torch.jit.script(model) if how == "script" else torch.jit.trace(model, torch.ones(2, 6))
    made.save(str(tmp_path / "model_7"))
    assert layout_of(tmp_path / "model_7") == "torch"
    found = open_file(tmp_path / "model_7")
    parameters = dict(model.named_parameters())
    assert set(found.tensors) == set(parameters) and not found.skips and not found.notes
    for name, tensor in parameters.items():
        assert (found.tensors[name].read() == tensor.detach().numpy()).all()
    assert names_of(found.aside, "no linear map") == {name for name, _ in model.named_buffers()}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore::FutureWarning")
def test_weights_of_a_frozen_archive_are_reported_as_nameless(tmp_path: Path) -> None:
    frozen = torch.jit.freeze(torch.jit.script(network(6, 8, 4).eval()))
    frozen.save(str(tmp_path / "step_7.pt"))
    found = open_file(tmp_path / "step_7.pt")
    assert not found.tensors and len(found.skips) == 2
    assert layout_of(tmp_path / "step_7.pt") == "torch"


def write_agent(path: Path, **held: Any) -> None:
    """Write the zip of an agent: a torch file for each part, and settings."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", "{}")
        for name, found in held.items():
            written = io.BytesIO()
            torch.save(found, written)
            archive.writestr(f"{name.replace('__', '.')}.pth", written.getvalue())
        archive.writestr("_stable_baselines3_version", "2.3.0")


def test_an_agent_of_stable_baselines_is_its_policy(tmp_path: Path) -> None:
    model = network(6, 8, 4)
    table = {f"q_net.{name}": tensor for name, tensor in model.state_dict().items()}
    targets = {name.replace("q_net.", "q_net_target."): t.clone() for name, t in table.items()}
    path = tmp_path / "agent_100.zip"
    write_agent(
        path,
        policy=table | targets,
        policy__optimizer=trained(model),
        pytorch_variables={"log_ent_coef": torch.zeros(1)},
    )
    assert layout_of(path) == "torch"
    contents = open_run(path).checkpoints[0].contents
    assert set(contents.parameters) == {"q_net.fc0.weight", "q_net.fc1.weight"}
    assert not contents.skips
    kinds = {one.tensor: one.kind for one in contents.account}
    assert all(kinds[name] == "optimizer" for name in targets)
    assert kinds["pytorch_variables.log_ent_coef"] == "no linear map"
    assert len(kinds) == 2 * len(table) + 3 * len(table) + 1
    (tmp_path / "other.zip").write_bytes(b"PK\5\6" + bytes(18))
    assert layout_of(tmp_path / "other.zip") is None


leaves = st.sampled_from(
    [(), (3,), (4, 6), (2, 3, 4), (1, 5), (0, 4)],
).map(torch.ones)
keys = st.sampled_from(
    [
        *("model", "weight", "fc.weight", "layers.0.fc.weight", "ema", "opt", "state", "x"),
        *("param_groups", "net", "bias", "exp_avg", "optimizer", "h", "module"),
    ]
)
objects = st.recursive(
    leaves | st.none() | st.integers(0, 9),
    lambda held: st.dictionaries(keys, held, max_size=4) | st.lists(held, max_size=3),
    max_leaves=12,
)


@given(found=st.dictionaries(keys, objects, max_size=5))
@settings(max_examples=150, deadline=None)
@pytest.mark.slow
def test_every_tensor_of_any_object_is_passed_on_once(
    found: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "f.pt"
    torch.save(found, path)
    count = len(list(iter_tensors(found, set())))
    try:
        sorted_ = sorted_tables(open_saved(path))
    except RankscopeError:
        return  # nothing of a model in it
    names = [*(t.name for t in sorted_.tensors.values()), *(o.tensor.name for o in sorted_.aside)]
    assert len(names) == len(set(names)) == count
    not_understood = {one.tensor.name for one in sorted_.aside if one.kind == "not understood"}
    assert not_understood == {skip.tensor for skip in sorted_.skips}


def test_a_table_of_a_class_of_a_script_is_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gone_script", None)
    kind = script_with("Weights", "class Weights(dict): pass")
    torch.save({"net": kind({"fc.weight": torch.randn(8, 6)})}, tmp_path / "table.pt")
    kind = script_with("Stack", "class Stack(list): pass")
    torch.save({"model": {}, "all": kind([torch.randn(8, 6)])}, tmp_path / "list.pt")
    monkeypatch.setitem(sys.modules, "gone_script", None)
    found = sorted_tables(open_saved(tmp_path / "table.pt"))
    assert list(found.tensors) == ["net.fc.weight"] and not found.skips
    found = sorted_tables(open_saved(tmp_path / "list.pt"))
    assert not found.tensors and len(found.skips) == 1 and found.skips[0].tensor.startswith("all.")


def test_tensors_with_equal_paths_are_two_in_the_account(tmp_path: Path) -> None:
    table = {"ema.w": torch.randn(8, 6), "w": torch.randn(8, 6)}
    torch.save({"model": table, "ema": {"w": torch.randn(8, 6)}}, tmp_path / "step_5.pt")
    contents = open_run(tmp_path / "step_5.pt")[5].contents
    assert len(contents.account) == 3
