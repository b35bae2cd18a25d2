"""Reparametrised and pruned weights are those that torch's modules multiply with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.discovery import open_run
from rankscope.errors import RankscopeError

torch = pytest.importorskip("torch")
nn = torch.nn
prune = pytest.importorskip("torch.nn.utils.prune")
new = nn.utils.parametrizations

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def contents_of_model(model: Any, folder: Path) -> Contents:
    torch.save(model.state_dict(), folder / "step_1.pt")
    return open_run(folder)[1].contents


def classes(contents: Contents) -> dict[str, str]:
    return {one.tensor: one.kind for one in contents.account}


def spoiled(model: Any) -> Any:
    """The model after something like a training: no gain is the norm that it began as."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + torch.rand_like(parameter))
    return model


def pruned(module: Any, name: str) -> Any:
    prune.ln_structured(module, name, amount=0.5, n=2, dim=0)
    return module


def stepped(module: Any) -> Any:
    """The module after steps of the power iteration, which only training takes."""
    module.train()
    for _ in range(3):
        getattr(module, "weight", None)
        module(
            torch.randn(2, *([module.in_features] if hasattr(module, "in_features") else [4, 9]))
        )
    return module


def stepped_old(module: Any) -> Any:
    return stepped(nn.utils.spectral_norm(module))


def stepped_new(module: Any) -> Any:
    return stepped(new.spectral_norm(module))


MADE: dict[str, tuple[Callable[[], Any], str]] = {
    "pruned": (lambda: pruned(nn.Linear(8, 6), "weight"), "weight"),
    "pruned convolution": (lambda: pruned(nn.Conv2d(4, 6, 3), "weight"), "weight"),
    "pruned attention": (lambda: pruned(nn.MultiheadAttention(8, 2), "in_proj_weight"),
                         "in_proj_weight"),
    "pruned twice": (lambda: pruned(pruned(nn.Linear(8, 6), "weight"), "weight"), "weight"),
    "weight norm": (lambda: nn.utils.weight_norm(nn.Linear(8, 6)), "weight"),
    "of its columns": (lambda: nn.utils.weight_norm(nn.Linear(8, 6), dim=1), "weight"),
    "of the whole": (lambda: nn.utils.weight_norm(nn.Linear(8, 6), dim=None), "weight"),
    "of a convolution": (lambda: nn.utils.weight_norm(nn.Conv1d(4, 6, 3)), "weight"),
    "of its last axis": (lambda: nn.utils.weight_norm(nn.Conv1d(4, 6, 3), dim=2), "weight"),
    "of a recurrence": (lambda: nn.utils.weight_norm(nn.GRU(8, 6), "weight_hh_l0"), "weight_hh_l0"),
    "new weight norm": (lambda: new.weight_norm(nn.Linear(8, 6)), "weight"),
    "new, of its columns": (lambda: new.weight_norm(nn.Linear(8, 6), dim=1), "weight"),
    "new, of the whole": (lambda: new.weight_norm(nn.Linear(8, 6), dim=None), "weight"),
    "new, of attention": (lambda: new.weight_norm(nn.MultiheadAttention(8, 2), "in_proj_weight"),
                          "in_proj_weight"),
    "spectral norm": (lambda: stepped_old(nn.Linear(8, 6)), "weight"),
    "of a square": (lambda: stepped_old(nn.Linear(8, 8)), "weight"),
    "of kernels": (lambda: stepped_old(nn.Conv1d(4, 6, 3)), "weight"),
    "of kernels turned": (lambda: stepped_old(nn.ConvTranspose1d(4, 6, 3)), "weight"),
    "of square kernels turned": (lambda: stepped_old(nn.ConvTranspose1d(4, 4, 3)),
                                 "weight"),
    "new spectral norm": (lambda: stepped_new(nn.Linear(8, 6)), "weight"),
    "new, of kernels turned": (lambda: stepped_new(nn.ConvTranspose1d(4, 4, 3)), "weight"),
}  # fmt: skip


@pytest.mark.parametrize("made", MADE)
def test_the_weight_is_that_of_the_module(made: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, name = MADE[made]
    module = spoiled(make()).eval()
    for hook in module._forward_pre_hooks.values():  # what the forward pass would do first
        hook(module, None)
    expected = getattr(module, name).detach().double().numpy()
    contents = contents_of_model(module, tmp_path)
    assert not contents.skips
    named = [p.tensor for n, p in contents.parameters.items() if n.partition("[")[0] == name]
    assert named and all(tensor is not None for tensor in named)
    found = np.concatenate([tensor.read() for tensor in named if tensor is not None])
    assert found.dtype == np.float64
    assert found == pytest.approx(expected.reshape(len(expected), -1), rel=1e-5, abs=1e-6)
    parts = {n for n, kind in classes(contents).items() if kind == "part of"}
    stem = name if "parametrizations" not in " ".join(parts) else f"parametrizations.{name}"
    assert len(parts) in (2, 3) and all(part.startswith(stem) for part in parts)
    kinds = [one for one in contents.account if one.kind == "part of"]
    assert all(one.reason.partition("[")[0] == name for one in kinds)


def test_a_pruned_weight_has_the_rank_that_is_left(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.ModuleDict({"fc": pruned(nn.Linear(16, 12), "weight"), "out": nn.Linear(12, 4)})
    contents = contents_of_model(net, tmp_path)
    assert set(contents.parameters) == {"fc.weight", "out.weight"}
    tensor = contents.parameters["fc.weight"].tensor
    assert tensor is not None and np.linalg.matrix_rank(tensor.read()) == 6
    assert tensor.dtype == "float32" and tensor.elements(5, 9).shape == (4,)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "float16", "float64"])
def test_a_mask_is_one_in_whatever_format_it_is_kept(dtype: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    mask = torch.randn(6, 8) > 0
    weight = torch.randn(6, 8)
    state = {"fc.weight_orig": weight, "fc.weight_mask": mask.to(getattr(torch, dtype))}
    torch.save(state, tmp_path / "step_1.pt")
    contents = open_run(tmp_path)[1].contents
    tensor = contents.parameters["fc.weight"].tensor
    assert tensor is not None and not contents.skips
    assert (tensor.read() == (weight * mask).double().numpy()).all()


def test_pruned_biases_are_vectors_still(tmp_path: Path) -> None:
    module = pruned(nn.Linear(8, 6), "weight")
    prune.random_unstructured(module, "bias", amount=2)
    found = classes(contents_of_model(module, tmp_path))
    assert (found["bias_orig"], found["bias_mask"]) == ("no linear map", "no linear map")


def test_a_fused_weight_is_split_after_it_was_put_together(tmp_path: Path) -> None:
    block = nn.ModuleDict({
        "attn": nn.ModuleDict({"c_attn": pruned(nn.Linear(8, 24), "weight"),
                               "c_proj": nn.Linear(8, 8)}),
        "mlp": nn.ModuleDict({"c_fc": nn.Linear(8, 32), "c_proj": nn.Linear(32, 8)}),
    })  # fmt: skip
    model = nn.ModuleDict({"h": nn.ModuleList([block])})
    contents = contents_of_model(model, tmp_path)
    expected = block["attn"]["c_attn"].weight.detach().double().numpy()
    for i, role in enumerate("qkv"):
        tensor = contents.parameters[f"h.0.attn.c_attn.weight[{role}]"].tensor
        assert tensor is not None and (tensor.read() == expected[8 * i : 8 * i + 8]).all()


class Symmetric(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.triu() + x.triu(1).T


def with_symmetry() -> Any:
    module = nn.Linear(6, 6)
    nn.utils.parametrize.register_parametrization(module, "weight", Symmetric())
    return module


def with_two() -> Any:
    module = new.spectral_norm(nn.Linear(6, 6))
    nn.utils.parametrize.register_parametrization(module, "weight", nn.PReLU())
    return module


@pytest.mark.parametrize(
    "make",
    [lambda: new.orthogonal(nn.Linear(6, 6)), with_symmetry, with_two],
    ids=["orthogonal", "symmetric", "two at once"],
)
def test_any_other_parametrisation_is_not_understood_by_name(
    make: Callable[[], Any], tmp_path: Path
) -> None:
    net = nn.ModuleDict({"odd": make(), "plain": nn.Linear(6, 4)})
    contents = contents_of_model(net, tmp_path)
    assert list(contents.parameters) == ["plain.weight"]
    (skip,) = contents.skips
    assert (skip.tensor, skip.reason) == ("odd.weight", "reparametrised")
    assert "remove_parametrizations" in skip.message
    found = classes(contents)
    assert {found[name] for name in found if ".parametrizations." in name} == {"not understood"}


def test_an_original_without_its_mask_is_not_understood(tmp_path: Path) -> None:
    torch.save({"fc.weight_orig": torch.randn(6, 8)}, tmp_path / "step_1.pt")
    contents = open_run(tmp_path)[1].contents
    assert not contents.parameters and [s.tensor for s in contents.skips] == ["fc.weight"]


def test_a_weight_beside_a_mask_is_uncertain(tmp_path: Path) -> None:
    weight, mask = torch.randn(6, 8), (torch.randn(6, 8) > 0).float()
    state = {"a.weight": weight, "a.mask": mask, "b.weight": weight.clone(), "b.weight_mask": mask}
    torch.save(state, tmp_path / "step_1.pt")
    contents = open_run(tmp_path)[1].contents
    assert [s.tensor for s in contents.skips] == ["a.weight"]
    (only,) = contents.parameters.values()
    assert only.name == "b.weight" and only.tensor is not None
    assert (only.tensor.read() == (weight * mask).double().numpy()).all()


def test_maps_with_names_of_norm_parts_are_maps(tmp_path: Path) -> None:
    state = {"cell.w_g": torch.randn(6, 8), "cell.w_v": torch.randn(6, 8)}
    torch.save(state | {"x.weight_u": torch.randn(6)}, tmp_path / "step_1.pt")
    assert set(open_run(tmp_path)[1].contents.parameters) == {"cell.w_g", "cell.w_v"}


def test_a_norm_of_zero_makes_no_weight(tmp_path: Path) -> None:
    module = nn.utils.weight_norm(nn.Linear(8, 6))
    with torch.no_grad():
        module.weight_v[2] = 0
    tensor = contents_of_model(module, tmp_path).parameters["weight"].tensor
    assert tensor is not None
    with pytest.raises(RankscopeError, match=r"'weight': divides by a norm of zero"):
        tensor.read()
