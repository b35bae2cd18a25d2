import base64
import json
import pickle
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from rankscope.checkpoints.contents import Contents, Heads
from rankscope.checkpoints.discovery import open_run, open_runs
from rankscope.checkpoints.layouts import LAYOUTS, layout_of, olmo_v1
from rankscope.checkpoints.options import DEFAULT, Options
from rankscope.errors import RankscopeError

WIDTH, HIDDEN, HEADS, LAYERS, VOCABULARY = 16, 64, 4, 2, 24
SIZE = WIDTH // HEADS
MODEL_ARGS = {
    "n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "block_size": 32, "bias": False,
    "vocab_size": VOCABULARY, "dropout": 0.0,
}  # fmt: skip
Tensors = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(2307)


def nanogpt_weights(prefix: str = "") -> Tensors:
    """State dict of nanoGPT: Linear weights, and the head tied to the embeddings."""
    weights = OrderedDict()
    weights["transformer.wte.weight"] = torch.randn(VOCABULARY, WIDTH)
    weights["transformer.wpe.weight"] = torch.randn(32, WIDTH)
    for i in range(LAYERS):
        block = f"transformer.h.{i}"
        weights[f"{block}.ln_1.weight"] = torch.ones(WIDTH)
        weights[f"{block}.attn.c_attn.weight"] = torch.randn(3 * WIDTH, WIDTH)
        weights[f"{block}.attn.c_proj.weight"] = torch.randn(WIDTH, WIDTH)
        weights[f"{block}.mlp.c_fc.weight"] = torch.randn(HIDDEN, WIDTH)
        weights[f"{block}.mlp.c_proj.weight"] = torch.randn(WIDTH, HIDDEN)
    weights["transformer.ln_f.weight"] = torch.ones(WIDTH)
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    return OrderedDict((prefix + name, tensor) for name, tensor in weights.items())


def optimizer_state(weights: Tensors) -> dict[str, Any]:
    """State of AdamW after a step on these weights."""
    parameters = [torch.nn.Parameter(tensor.clone()) for tensor in weights.values()]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW(parameters)
    optimizer.step()
    return optimizer.state_dict()


def nanogpt_file(path: Path, *, step: int, weights: Tensors | None = None, **more: Any) -> Tensors:
    """Write the dict that nanoGPT's train.py writes."""
    weights = nanogpt_weights() if weights is None else weights
    entries = {
        "model": weights,
        "optimizer": optimizer_state(weights),
        "model_args": MODEL_ARGS,
        "iter_num": step,
        "best_val_loss": torch.tensor(2.5),
        "config": {"out_dir": "out", "n_head": 12, "dtype": "bfloat16"},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(entries | more, path)
    return weights


def assert_held(contents: Contents, weights: Tensors) -> None:
    """Whether each parameter is the tensor of its name, or its rows given in brackets."""
    assert contents.parameters
    for name, parameter in contents.parameters.items():
        whole, _, part = name.partition("[")
        expected = weights[whole].float().numpy()
        if part:
            start = {"q]": 0, "k]": 1, "v]": 2}[part] * WIDTH
            expected = expected[start : start + WIDTH]
        assert parameter.tensor is not None
        assert np.array_equal(parameter.tensor.read(), expected), name


def test_a_nanogpt_file_gives_its_model_without_the_optimizer(tmp_path: Path) -> None:
    weights = nanogpt_file(tmp_path / "ckpt.pt", step=600)
    run = open_run(tmp_path / "ckpt.pt")
    assert run.steps == (600,)
    assert (run[600].layout, run[600].step_source) == ("nanogpt", "iter_num")
    contents = run[600].contents
    assert_held(contents, weights)
    assert contents.heads == Heads(HEADS, HEADS, SIZE)
    assert contents.family == "nanogpt"
    # q, k, v, o, up, down of each layer, and the embeddings once: the head is tied to them
    assert len(contents.parameters) == 6 * LAYERS + 1
    roles = [p.role for p in contents.parameters.values()]
    assert roles.count("q") == roles.count("up") == LAYERS
    assert roles.count("embed") == 1 and "unembed" not in roles


def test_the_causal_mask_of_older_versions_is_not_a_parameter(tmp_path: Path) -> None:
    weights = nanogpt_weights()
    mask = {"transformer.h.0.attn.bias": torch.ones(1, 1, 32, 32).tril()}
    nanogpt_file(tmp_path / "ckpt.pt", step=1, weights=weights | mask)
    contents = open_run(tmp_path)[1].contents
    assert len(contents.parameters) == 6 * LAYERS + 1
    assert "transformer.h.0.attn.bias" in contents.left_out


def test_tensors_in_formats_that_numpy_lacks_are_reported(tmp_path: Path) -> None:
    weights = nanogpt_weights() | {"transformer.h.0.scale": torch.ones(4).to(torch.float8_e8m0fnu)}
    nanogpt_file(tmp_path / "ckpt.pt", step=1, model=weights)
    skips = {skip.tensor: skip for skip in open_run(tmp_path)[1].contents.skips}
    skip = skips["transformer.h.0.scale"]
    assert skip.reason == "unreadable" and "float8_e8m0fnu" in skip.message


def test_prefixes_of_compiled_modules_are_removed(tmp_path: Path) -> None:
    weights = nanogpt_weights()
    wrapped = {f"_orig_mod.{name}": tensor for name, tensor in weights.items()}
    nanogpt_file(tmp_path / "ckpt.pt", step=1, weights=wrapped)
    assert_held(open_run(tmp_path)[1].contents, weights)


@pytest.mark.parametrize(
    "names", [("ckpt_200.pt", "ckpt_1000.pt"), ("000200_ckpt.pt", "001000_ckpt.pt")]
)
def test_a_series_of_files_is_one_run_in_the_order_of_its_steps(
    names: tuple[str, str], tmp_path: Path
) -> None:
    written = {}
    for name, step in zip(names, (200, 1000), strict=True):
        written[step] = nanogpt_file(tmp_path / "out" / name, step=step)
    (tmp_path / "out" / "log.txt").write_text("step 200: train loss 3.0")
    (run,) = open_runs([tmp_path])
    assert run.steps == (200, 1000)
    for step, weights in written.items():
        assert_held(run[step].contents, weights)


def test_the_copy_to_resume_from_is_not_counted_twice(tmp_path: Path) -> None:
    for name, step in (("200_ckpt.pt", 200), ("400_ckpt.pt", 400), ("ckpt.pt", 400)):
        nanogpt_file(tmp_path / name, step=step)
    run = open_run(tmp_path)
    assert [c.path.name for c in run] == ["200_ckpt.pt", "400_ckpt.pt"]
    assert open_run(tmp_path / "ckpt.pt").steps == (400,)


def test_the_speedrun_states_its_step_but_no_config(tmp_path: Path) -> None:
    weights = nanogpt_weights("_orig_mod.")
    path = tmp_path / "state_step000100.pt"
    torch.save(
        {"step": 100, "code": "x = 1", "model": weights, "optimizers": [optimizer_state(weights)]},
        path,
    )
    contents = open_run(tmp_path)[100].contents
    assert_held(contents, nanogpt_named(weights))
    assert contents.heads is None


def nanogpt_named(weights: Tensors) -> Tensors:
    return {name.removeprefix("_orig_mod."): tensor for name, tensor in weights.items()}


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("ckpt.pt", {"model": {"w": torch.ones(2, 2)}, "args": {}}),
        ("state_step000100.pt", {"weights": {"w": torch.ones(2, 2)}}),
        ("weights.pt", {"model": {"w": torch.ones(2, 2)}, "model_args": {}}),
        ("other.ckpt", {"state_dict": {"w": torch.ones(2, 2)}}),
    ],
)
def test_files_of_other_trainers_are_left_to_other_layouts(
    name: str, entries: dict[str, Any], tmp_path: Path
) -> None:
    torch.save(entries, tmp_path / name)
    assert layout_of(tmp_path / name) not in ("nanogpt", "nanochat", "lightning")


def test_a_file_of_another_kind_under_a_name_of_weights_is_refused(
    tmp_path: Path,
) -> None:
    (tmp_path / "model.ckpt").write_text("not a checkpoint of torch")
    torch.save([torch.ones(2, 2)], tmp_path / "ckpt.pt")
    assert layout_of(tmp_path / "model.ckpt") == "torch"
    with pytest.raises(RankscopeError, match=r"model\.ckpt: is cut short or not a torch file"):
        LAYOUTS["torch"].read(tmp_path / "model.ckpt", DEFAULT)
    assert layout_of(tmp_path / "ckpt.pt") != "nanogpt"


def test_entries_of_another_kind_are_an_error_in_one_line(tmp_path: Path) -> None:
    nanogpt_file(tmp_path / "ckpt.pt", step=1, model=[torch.ones(2, 2)])
    contents = open_run(tmp_path)[1].contents
    assert not contents.parameters
    assert "is in a list" in next(str(s) for s in contents.skips if s.tensor == "model.0")
    nanogpt_file(tmp_path / "ckpt.pt", step=1, model=7)
    with pytest.raises(RankscopeError, match=r"ckpt\.pt: has no weights under its key 'model'"):
        _ = open_run(tmp_path)[1].contents
    nanogpt_file(tmp_path / "ckpt.pt", step=1, model={"version": 3})
    with pytest.raises(RankscopeError, match=r"ckpt\.pt: has no weights under its key"):
        _ = open_run(tmp_path)[1].contents


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("name", ["ckpt_7.pt", "step=7.ckpt"])
def test_code_beside_the_weights_is_named_and_not_run(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    torch.save({"model": {"w": torch.ones(2, 2)}, "it": Hostile(mark)}, tmp_path / name)
    run = open_run(tmp_path)
    assert run.steps == (7,)
    contents = run[7].contents
    assert set(contents.parameters) == {"w"} and not contents.skips
    (note,) = [note for note in contents.notes if note.reason == "closed-objects"]
    assert "posix.system" in note.message
    assert not mark.exists()
    torch.save({"model": Hostile(mark)}, tmp_path / name)
    with pytest.raises(RankscopeError, match=r"posix\.system") as refused:
        open_run(tmp_path)[7].read()
    assert refused.value.reason == "unsafe-pickle" and refused.value.path == str(tmp_path / name)
    assert not mark.exists()


def test_a_class_of_an_installed_package_is_made_where_pickles_are_trusted(tmp_path: Path) -> None:
    import decimal

    weights = nanogpt_file(tmp_path / "ckpt_5.pt", step=5, loss=decimal.Decimal("2.5"))
    closed = open_run(tmp_path)[5].contents
    assert_held(closed, weights)
    assert "decimal.Decimal" in closed.notes[0].message
    assert_held(open_run(tmp_path, trust_pickle=True)[5].contents, weights)


def test_a_file_cut_short_keeps_its_place_in_the_series(tmp_path: Path) -> None:
    for step in (1, 2):
        nanogpt_file(tmp_path / f"ckpt_{step}.pt", step=step)
    path = tmp_path / "ckpt_2.pt"
    path.write_bytes(path.read_bytes()[:-2000])
    run = open_run(tmp_path)
    assert run.steps == (1, 2)
    with pytest.raises(RankscopeError, match=r"ckpt_2\.pt"):
        _ = run[2].contents


def nanochat_weights() -> Tensors:
    weights = {"transformer.wte.weight": torch.randn(VOCABULARY, WIDTH).bfloat16()}
    for i in range(LAYERS):
        block = f"transformer.h.{i}"
        weights[f"{block}.attn.c_q.weight"] = torch.randn(WIDTH, WIDTH)
        weights[f"{block}.attn.c_k.weight"] = torch.randn(WIDTH // 2, WIDTH)
        weights[f"{block}.attn.c_v.weight"] = torch.randn(WIDTH // 2, WIDTH)
        weights[f"{block}.attn.c_proj.weight"] = torch.randn(WIDTH, WIDTH)
        weights[f"{block}.mlp.c_fc.weight"] = torch.randn(HIDDEN, WIDTH)
        weights[f"{block}.mlp.c_proj.weight"] = torch.randn(WIDTH, HIDDEN)
    weights["value_embeds.1.weight"] = torch.randn(VOCABULARY, WIDTH // 2)
    weights["lm_head.weight"] = torch.randn(VOCABULARY, WIDTH)
    return weights


def nanochat_files(folder: Path, *, step: int) -> Tensors:
    """Write the three files of a step."""
    weights = nanochat_weights()
    torch.save(weights, folder / f"model_{step:06d}.pt")
    torch.save(optimizer_state(weights), folder / f"optim_{step:06d}_rank0.pt")
    config = {
        "sequence_len": 32, "vocab_size": VOCABULARY, "n_layer": LAYERS, "n_head": HEADS,
        "n_kv_head": HEADS // 2, "n_embd": WIDTH,
    }  # fmt: skip
    meta = {"step": step, "val_bpb": 1.1, "model_config": config, "user_config": {"depth": 2}}
    (folder / f"meta_{step:06d}.json").write_text(json.dumps(meta))
    return weights


def test_nanochat_files_with_their_descriptions_are_a_run(tmp_path: Path) -> None:
    written = {step: nanochat_files(tmp_path, step=step) for step in (600, 1200)}
    run = open_run(tmp_path)
    assert run.steps == (600, 1200)
    assert {c.layout for c in run} == {"nanochat"}
    assert run[600].step_source == "file"
    for step, weights in written.items():
        contents = run[step].contents
        assert set(contents.parameters) == set(weights)
        assert_held(contents, weights)
        assert contents.heads == Heads(HEADS, HEADS // 2, SIZE)
        roles = {n.partition(".h.1.")[2]: p.role for n, p in contents.parameters.items()}
        assert [roles[f"attn.{n}.weight"] for n in ("c_q", "c_k", "c_proj")] == ["q", "k", "o"]


def test_a_model_without_its_description_is_not_nanochat(tmp_path: Path) -> None:
    nanochat_files(tmp_path, step=600)
    (tmp_path / "meta_000600.json").unlink()
    assert layout_of(tmp_path / "model_000600.pt") != "nanochat"
    assert layout_of(tmp_path / "optim_000600_rank0.pt") != "nanochat"


def litgpt_weights(groups: int) -> Tensors:
    weights = {"lm_head.weight": torch.randn(VOCABULARY, WIDTH)}
    weights["transformer.wte.weight"] = torch.randn(VOCABULARY, WIDTH)
    for i in range(LAYERS):
        block = f"transformer.h.{i}"
        weights[f"{block}.norm_1.weight"] = torch.ones(WIDTH)
        weights[f"{block}.attn.qkv.weight"] = torch.randn((HEADS + 2 * groups) * SIZE, WIDTH)
        weights[f"{block}.attn.proj.weight"] = torch.randn(WIDTH, WIDTH)
        weights[f"{block}.mlp.fc_1.weight"] = torch.randn(HIDDEN, WIDTH)
        weights[f"{block}.mlp.fc_2.weight"] = torch.randn(HIDDEN, WIDTH)
        weights[f"{block}.mlp.proj.weight"] = torch.randn(WIDTH, HIDDEN)
    return weights


def litgpt_folder(folder: Path, *, step: int | None, groups: int = 2) -> Tensors:
    """Write a folder of LitGPT: of pretraining with a step, of a converted model without one."""
    weights = litgpt_weights(groups)
    state: dict[str, Any] = dict(weights)
    if step is not None:
        state = {
            "model": weights, "optimizer": optimizer_state(weights), "iter_num": 16 * step,
            "step_count": step, "train_dataloader": {},
        }  # fmt: skip
    folder.mkdir(parents=True)
    torch.save(state, folder / "lit_model.pth")
    config = {
        "name": "pythia-14m", "hf_config": {"org": "EleutherAI", "name": "pythia-14m"},
        "n_layer": LAYERS, "n_head": HEADS, "n_query_groups": groups, "n_embd": WIDTH,
        "head_size": SIZE, "mlp_class_name": "LLaMAMLP", "bias": False,
    }  # fmt: skip
    (folder / "model_config.yaml").write_text(yaml.dump(config))
    return weights


def test_litgpt_has_its_weights_flat_or_under_a_key(tmp_path: Path) -> None:
    for step in (None, 40):
        folder = tmp_path / ("converted" if step is None else "trained")
        weights = litgpt_folder(folder, step=step)
        (run,) = open_runs([folder])
        (checkpoint,) = run
        contents = checkpoint.contents
        assert (checkpoint.layout, contents.family) == ("litgpt", "litgpt")
        assert contents.heads == Heads(HEADS, 2, SIZE)
        qkv = "transformer.h.1.attn.qkv.weight"
        expected = weights[qkv].numpy()
        for part, (start, stop) in {"q": (0, 16), "k": (16, 24), "v": (24, 32)}.items():
            tensor = contents.parameters[f"{qkv}[{part}]"].tensor
            assert tensor is not None and np.array_equal(tensor.read(), expected[start:stop])
        roles = {n.split(".h.0.")[1]: p.role for n, p in contents.parameters.items() if ".0." in n}
        assert roles["mlp.fc_1.weight"] == "gate" and roles["mlp.proj.weight"] == "down"
        assert len(contents.parameters) == 2 + 7 * LAYERS


def test_litgpt_counts_optimizer_steps_and_the_final_copy_once(tmp_path: Path) -> None:
    litgpt_folder(tmp_path / "step-00000020", step=20)
    litgpt_folder(tmp_path / "step-00000040", step=40)
    litgpt_folder(tmp_path / "final", step=40)
    assert open_run(tmp_path).steps == (20, 40)
    (final,) = open_run(tmp_path / "final")
    assert (final.step, final.step_source) == (40, "step_count")


def test_litgpt_without_a_step_anywhere_is_a_run_of_its_own(tmp_path: Path) -> None:
    litgpt_folder(tmp_path / "final", step=None)
    (final,) = open_run(tmp_path)
    assert (final.step, final.step_source) == (0, "order")


@pytest.mark.parametrize("is_merged", [False, True])
def test_a_lora_file_of_litgpt_is_reported(is_merged: bool, tmp_path: Path) -> None:
    folder = tmp_path / "final"
    litgpt_folder(folder, step=None)
    if not is_merged:
        (folder / "lit_model.pth").unlink()
    block = "transformer.h.0.attn.qkv"
    factors = {f"{block}.lora_A": torch.ones(4, WIDTH), f"{block}.lora_B": torch.ones(32, 2)}
    torch.save({"model": factors}, folder / "lit_model.pth.lora")
    (final,) = open_run(folder)
    assert [skip.reason for skip in final.contents.skips] == ["adapter-unsupported"]
    assert "lit_model.pth.lora: a LoRA file" in str(final.contents.skips[0])
    assert bool(final.contents.parameters) == is_merged


def lightning_file(path: Path, weights: Tensors, *, step: int, **more: Any) -> None:
    """Write the dict that Lightning's trainer writes."""
    entries = {
        "epoch": 0,
        "global_step": step,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": OrderedDict(weights),
        "loops": {"fit_loop": {"epoch_progress": {"current": {"ready": 1}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(1.0)}},
        "optimizer_states": [optimizer_state(weights)],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 1e-3, "config": dict(MODEL_ARGS)},
    }
    torch.save(entries | more, path)


@pytest.mark.parametrize("attribute", ["model.", "net.", "network.", "model._orig_mod.", ""])
def test_the_attribute_of_a_lightning_module_is_removed(attribute: str, tmp_path: Path) -> None:
    weights = nanogpt_weights()
    held = {attribute + name: tensor for name, tensor in weights.items()}
    lightning_file(tmp_path / "epoch=0-step=100.ckpt", held, step=100)
    run = open_run(tmp_path)
    contents = run[100].contents
    assert (run[100].layout, contents.family) == ("lightning", "nanogpt")
    assert_held(contents, weights)
    assert contents.heads == Heads(HEADS, HEADS, SIZE)
    assert len(contents.parameters) == 6 * LAYERS + 1


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        # the module holds a Hugging Face model: its own ``model`` stays
        (["model.model.layers.0.mlp.up_proj.weight", "model.lm_head.weight"],
         {"model.layers.0.mlp.up_proj.weight", "lm_head.weight"}),
        # not all are in the attribute
        (["model.layers.0.mlp.up_proj.weight", "lm_head.weight"],
         {"model.layers.0.mlp.up_proj.weight", "lm_head.weight"}),
        # no layers would be left
        (["model.0.weight", "model.2.weight"], {"model.0.weight", "model.2.weight"}),
    ],
)  # fmt: skip
def test_parts_of_the_models_names_stay(names: list[str], kept: set[str], tmp_path: Path) -> None:
    lightning_file(tmp_path / "last.ckpt", {name: torch.randn(4, 6) for name in names}, step=9)
    assert set(open_run(tmp_path)[9].contents.parameters) == kept


@pytest.mark.parametrize(
    "parameters",
    [
        dict(MODEL_ARGS),
        {"model": dict(MODEL_ARGS), "config": {"lr": 0.1}},
        {"cfg": {"model": "gpt"}, "model_config": dict(MODEL_ARGS)},
        {"config": Namespace(**MODEL_ARGS)},
        Namespace(**MODEL_ARGS),
    ],
)
def test_hyperparameters_of_lightning_are_the_config(parameters: Any, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    lightning_file(path, nanogpt_weights("model."), step=9, hyper_parameters=parameters)
    assert open_run(path)[9].contents.heads == Heads(HEADS, HEADS, SIZE)


def test_a_series_of_lightning_counts_its_last_copy_once(tmp_path: Path) -> None:
    for name, step in (("epoch=0-step=50", 50), ("epoch=1-step=100", 100), ("last", 100)):
        lightning_file(tmp_path / f"{name}.ckpt", nanogpt_weights("model."), step=step)
    assert [c.path.name for c in open_run(tmp_path)] == [
        "epoch=0-step=50.ckpt",
        "epoch=1-step=100.ckpt",
    ]


def deepspeed_folder(folder: Path, weights: Tensors | None, *, step: int, rank: int = 0) -> None:
    """Write what DeepSpeed writes for ZeRO-1 and 2: 16-bit weights in one flat buffer."""
    module = None
    if weights is not None:
        flat = torch.cat([tensor.flatten() for tensor in weights.values()])
        module, start = OrderedDict(), 0
        for name, tensor in weights.items():
            module[name] = flat[start : start + tensor.numel()].view(tensor.shape)
            start += tensor.numel()
    state = {
        "module": module,
        "buffer_names": [],
        "optimizer": None,
        "param_shapes": [OrderedDict((n, t.shape) for n, t in (weights or {}).items())],
        "frozen_param_shapes": None,
        "shared_params": {},
        "global_steps": step,
        "global_samples": 8 * step,
        "dp_world_size": 2,
        "mp_world_size": 1,
        "ds_config": {"zero_optimization": {"stage": 2}},
        "ds_version": "0.17.0",
    }
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / f"mp_rank_{rank:02d}_model_states.pt")
    partition = {"optimizer_state_dict": {"single_partition_of_fp32_groups": [torch.ones(64)]}}
    for process in range(2):
        name = f"bf16_zero_pp_rank_{process}_mp_rank_{rank:02d}_optim_states.pt"
        torch.save(partition, folder / name)


def llama_weights() -> Tensors:
    shapes = {"self_attn.q_proj": (16, 16), "mlp.up_proj": (24, 16), "mlp.down_proj": (16, 24)}
    shapes |= {"self_attn.k_proj": (8, 16), "self_attn.v_proj": (8, 16)}
    shapes |= {"self_attn.o_proj": (16, 16), "mlp.gate_proj": (24, 16)}
    return {
        f"model.layers.{i}.{name}.weight": torch.randn(shape).bfloat16()
        for i in range(LAYERS)
        for name, shape in shapes.items()
    }


def test_deepspeed_folders_are_a_run(tmp_path: Path) -> None:
    written = {step: llama_weights() for step in (100, 1000)}
    for step, weights in written.items():
        deepspeed_folder(tmp_path / f"global_step{step}", weights, step=step)
    (tmp_path / "latest").write_text("global_step1000")
    (tmp_path / "zero_to_fp32.py").write_text("")
    config = {"model_type": "llama", "hidden_size": 16, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    run = open_run(tmp_path)
    assert run.steps == (100, 1000)
    for step, weights in written.items():
        contents = run[step].contents
        assert run[step].layout == contents.layout == "deepspeed"
        assert set(contents.parameters) == set(weights)
        assert_held(contents, weights)
        assert contents.heads == Heads(4, 4, 4)


@pytest.mark.parametrize("tag", ["checkpoint", "pytorch_model"])
def test_a_deepspeed_folder_of_fixed_name_has_its_step_inside(tag: str, tmp_path: Path) -> None:
    for count, step in enumerate((300, 600)):
        deepspeed_folder(tmp_path / f"checkpoint_{count}" / tag, llama_weights(), step=step)
    run = open_run(tmp_path)
    assert run.steps == (300, 600)
    assert run[300].step_source == "global_steps"
    assert len(run[300].contents.parameters) == 7 * LAYERS


@pytest.mark.parametrize("inner", ["global_step500", "state/checkpoint"])
@pytest.mark.parametrize("layout", ["huggingface", "peft"])
def test_a_trainers_weights_are_preferred_to_the_state_beside_them(
    inner: str, layout: str, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint-500"
    deepspeed_folder(folder / inner, llama_weights(), step=500)
    if layout == "peft":
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
        save_file({"w": torch.ones(2)}, folder / "adapter_model.safetensors")
    else:
        save_file(llama_weights(), folder / "model.safetensors")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 500}))
    for path in (tmp_path, folder):
        (checkpoint,) = open_run(path)
        assert (checkpoint.layout, checkpoint.path, checkpoint.step) == (layout, folder, 500)


def test_slices_of_deepspeed_are_refused_with_advice(tmp_path: Path) -> None:
    empty = {name: torch.empty(0) for name in llama_weights()}
    deepspeed_folder(tmp_path / "empty" / "global_step1", empty, step=1)
    deepspeed_folder(tmp_path / "zero_3" / "global_step1", empty, step=1)
    states = tmp_path / "zero_3" / "global_step1" / "mp_rank_00_model_states.pt"
    states.rename(states.with_name(f"zero_pp_rank_0_{states.name}"))
    for rank in range(2):
        deepspeed_folder(tmp_path / "parallel" / "global_step1", llama_weights(), step=1, rank=rank)
    deepspeed_folder(tmp_path / "pipeline" / "global_step1", None, step=1)
    for rank in range(2):
        layer = f"layer_00-model_{rank:02d}-model_states.pt"
        torch.save(llama_weights(), tmp_path / "pipeline" / "global_step1" / layer)
    messages = {
        "empty": "holds empty weights, as ZeRO-3 .*zero_to_fp32",
        "zero_3": "global_step1: holds slices .*ZeRO-3.*zero_to_fp32",
        "parallel": "global_step1: has 2 files.* model parallelism",
        "pipeline": "global_step1: has 2 files.*of every layer",
    }
    for name, message in messages.items():
        run = open_run(tmp_path / name)
        assert run.steps == (1,)
        with pytest.raises(RankscopeError, match=message) as refused:
            _ = run[1].contents
        assert "\n" not in str(refused.value)


def olmo_weights(kv_heads: int) -> Tensors:
    weights = {"transformer.wte.weight": torch.randn(VOCABULARY, WIDTH)}
    for i in range(LAYERS):
        block = f"transformer.blocks.{i}"
        fused = (HEADS + 2 * kv_heads) * SIZE
        weights[f"{block}.attn_out.weight"] = torch.randn(WIDTH, WIDTH)
        weights[f"{block}.ff_out.weight"] = torch.randn(WIDTH, HIDDEN // 2)
        weights[f"{block}.att_proj.weight"] = torch.randn(fused, WIDTH)
        weights[f"{block}.ff_proj.weight"] = torch.randn(HIDDEN, WIDTH)
    weights["transformer.ff_out.weight"] = torch.randn(VOCABULARY, WIDTH)
    return weights


def encoded(name: str, *, is_pickled: bool = False) -> str:
    """Key of OLMo's safetensors files."""
    return base64.urlsafe_b64encode(pickle.dumps(((name,), is_pickled))).decode()


def olmo_folder(
    folder: Path, *, form: str = "torch", kv_heads: int = HEADS, **model: Any
) -> Tensors:
    """Write an unsharded checkpoint of OLMo's trainer."""
    weights = olmo_weights(kv_heads)
    folder.mkdir(parents=True)
    if form == "torch":
        torch.save(weights, folder / "model.pt")
    else:
        names = encoded if form == "encoded" else str
        save_file({names(n): t for n, t in weights.items()}, folder / "model.safetensors")
    torch.save(optimizer_state(weights), folder / "optim.pt")
    torch.save({"epoch": 0, "global_step": 1000}, folder / "train.pt")
    section = {
        "d_model": WIDTH, "n_heads": HEADS, "n_kv_heads": None, "n_layers": LAYERS,
        "mlp_ratio": 2, "mlp_hidden_size": HIDDEN, "activation_type": "swiglu",
        "multi_query_attention": None, "weight_tying": False, "vocab_size": VOCABULARY,
    }  # fmt: skip
    config = {"run_name": "OLMo-tiny", "seed": 6198, "model": section | model, "optimizer": {}}
    (folder / "config.yaml").write_text(yaml.dump(config))
    return weights


@pytest.mark.parametrize("form", ["torch", "encoded", "plain"])
def test_olmo_folders_are_a_run_in_either_form(form: str, tmp_path: Path) -> None:
    written = {
        step: olmo_folder(tmp_path / f"step{step}-unsharded", form=form) for step in (1000, 2000)
    }
    run = open_run(tmp_path)
    assert run.steps == (1000, 2000)
    for step, weights in written.items():
        contents = run[step].contents
        assert (run[step].layout, contents.family) == ("olmo_v1", "olmo_v1")
        assert contents.heads == Heads(HEADS, HEADS, SIZE)
        assert {name.partition("[")[0] for name in contents.parameters} == set(weights)
        name = "transformer.blocks.1.att_proj.weight"
        for i, part in enumerate("qkv"):
            tensor = contents.parameters[f"{name}[{part}]"].tensor
            rows = weights[name].numpy()[i * WIDTH : (i + 1) * WIDTH]
            assert tensor is not None and np.array_equal(tensor.read(), rows)
        assert contents.parameters["transformer.ff_out.weight"].role == "unembed"


@pytest.mark.parametrize(
    ("model", "kv_heads"),
    [({"multi_query_attention": True}, 1), ({"n_kv_heads": 2}, 2), ({"n_kv_heads": None}, HEADS)],
)
def test_key_value_heads_of_olmo_have_an_old_name_and_a_new_one(
    model: dict[str, Any], kv_heads: int, tmp_path: Path
) -> None:
    olmo_folder(tmp_path / "step5-unsharded", kv_heads=kv_heads, **model)
    contents = open_run(tmp_path)[5].contents
    assert contents.heads == Heads(HEADS, kv_heads, SIZE)
    shapes = {n: p.shape for n, p in contents.parameters.items() if "blocks.0.att_proj" in n}
    assert [shape[0] for shape in shapes.values()] == [WIDTH, kv_heads * SIZE, kv_heads * SIZE]


def test_a_name_of_olmo_is_listed_and_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    hostile = base64.urlsafe_b64encode(pickle.dumps(Hostile(mark))).decode()
    assert isinstance(olmo_v1.decoded(hostile), str)
    assert not mark.exists()
    assert olmo_v1.decoded(encoded("transformer.wte.weight")) == "transformer.wte.weight"
    for name in ("transformer.wte.weight", "bias", "gASV", "", "größe", "gARLAC4="):
        assert olmo_v1.decoded(name) == name


@pytest.mark.parametrize("text", ["model: [1, 2]", "model: {dim: 3}", "{", "- 1", "!!python/x 1"])
def test_other_configs_beside_a_model_are_not_olmo(text: str, tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2, 2)}, tmp_path / "model.pt")
    (tmp_path / "config.yaml").write_text(text)
    assert layout_of(tmp_path) != "olmo_v1"


@pytest.mark.parametrize(
    "layout", ["deepspeed", "lightning", "litgpt", "nanochat", "nanogpt", "olmo_v1"]
)
def test_every_layout_says_what_it_is(layout: str) -> None:
    assert LAYOUTS[layout].description
    assert LAYOUTS[layout].is_file == (layout in ("lightning", "nanochat", "nanogpt"))


def test_options_reach_the_file_of_every_layout(tmp_path: Path) -> None:
    nanogpt_file(tmp_path / "ckpt.pt", step=1, loss=Hostile(tmp_path / "mark"))
    assert LAYOUTS["nanogpt"].read(tmp_path / "ckpt.pt", DEFAULT).notes
    assert not (tmp_path / "mark").exists()
    assert LAYOUTS["nanogpt"].read(tmp_path / "ckpt.pt", Options(trust_pickle=True)).parameters
    assert (tmp_path / "mark").exists()


def test_an_empty_file_keeps_its_place_in_the_series(tmp_path: Path) -> None:
    nanogpt_file(tmp_path / "ckpt_200.pt", step=200)
    (tmp_path / "ckpt_400.pt").touch()
    run = open_run(tmp_path)
    assert run.steps == (200, 400)
    with pytest.raises(RankscopeError, match=r"ckpt_400\.pt: is empty"):
        run[400].read()


@pytest.mark.parametrize("blocks", [1, 3])
def test_the_files_of_a_pipeline_that_are_whole_are_one_model(blocks: int, tmp_path: Path) -> None:
    folder = tmp_path / "global_step100"
    folder.mkdir()
    names = ("attention.dense.weight", "mlp.dense_h_to_4h.weight")
    layers: dict[int, Tensors] = {0: {"word_embeddings.weight": torch.randn(VOCABULARY, WIDTH)}}
    for i in range(blocks):
        layers[2 + i] = {name: torch.randn(HIDDEN, WIDTH) for name in names}
    layers[3 + blocks] = {"norm.weight": torch.ones(WIDTH)}
    layers[4 + blocks] = {"final_linear.weight": torch.randn(VOCABULARY, WIDTH)}
    for number, table in layers.items():
        torch.save(table, folder / f"layer_{number:02d}-model_00-model_states.pt")
    torch.save({"module": {}, "global_steps": 100}, folder / "mp_rank_00_model_states.pt")
    (checkpoint,) = open_run(tmp_path)
    contents = checkpoint.contents
    assert checkpoint.step == 100 and len(contents.account) == 2 * blocks + 3
    places = {(p.layer, name.partition(".")[2]) for name, p in contents.parameters.items()}
    if blocks > 1:
        assert {place for place in places if place[0] is not None} == {
            (i, f"{i}.{name}") for i in range(blocks) for name in names
        }
    assert len(contents.parameters) == 2 * blocks + 2


def test_a_lightning_checkpoint_is_recognised_under_any_name(tmp_path: Path) -> None:
    lightning_file(tmp_path / "epoch_3.pth.tar", nanogpt_weights("model."), step=90)
    (checkpoint,) = open_run(tmp_path / "epoch_3.pth.tar")
    assert (checkpoint.layout, checkpoint.step) == ("lightning", 90)
    assert checkpoint.contents.heads == Heads(HEADS, HEADS, SIZE)
    kinds = {one.kind for one in checkpoint.contents.account}
    assert "optimizer" in kinds
