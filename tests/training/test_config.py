from __future__ import annotations

import pytest

from rankscope.errors import WrongSettingError
from rankscope.training.config import AdapterConfig, BatchConfig, Config, ModelConfig
from rankscope.training.config_file import config_from

PHASES: dict[str, object] = {
    "method": "phases",
    "phases.methods": ["full", "lora"],
    "phases.lengths": [9],
}


def test_every_setting_has_a_default() -> None:
    assert Config().method == "full"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("method", "relorra"),
        ("device", "tpu"),
        ("precision", "float16"),
        ("seed", -1),
        ("data.tokenizer", "words"),
        ("data.vocab_size", 0),
        ("data.validation_fraction", 0.0),
        ("data.validation_fraction", 0.9),
        ("model.num_hidden_layers", 0),
        ("model.num_key_value_heads", 3),
        ("model.hidden_size", 60),
        ("model.rms_norm_eps", 0.0),
        ("model.initializer_range", float("nan")),
        ("adapter.rank", 0),
        ("adapter.alpha", float("inf")),
        ("adapter.target_modules", []),
        ("adapter.target_modules", ["qkv_proj"]),
        ("schedule.steps", 0),
        ("schedule.learning_rate", -1e-3),
        ("schedule.warmup_steps", 1000),
        ("schedule.minimum_ratio", -0.1),
        ("schedule.decay", "exponential"),
        ("schedule.horizon", 500),
        ("data.order", "sorted"),
        ("model.initialisation", "ones"),
        ("model.vocab_size", -1),
        ("relora.rank_policy", "greedy"),
        ("relora.a_init", "svd"),
        ("relora.minimum_rank", 0),
        ("relora.published.pruned_moments", 1.0),
        ("relora.published.dropout", -0.5),
        ("phases.switch", "loss"),
        ("phases.methods", ["fulll"]),
        ("phases.rates", [1.0]),
        ("optimizer.tolerated_skips", -1),
        ("log.keep_last", -1),
        ("optimizer.beta2", 1.0),
        ("optimizer.weight_decay", float("nan")),
        ("optimizer.clip", -1.0),
        ("batch.sequences", 0),
        ("batch.micro_sequences", 5),
        ("log.save_every", 0),
    ],
)
def test_an_impossible_value_is_named_with_its_setting(key: str, value: object) -> None:
    shown = value[0] if isinstance(value, list) and value else value
    with pytest.raises(WrongSettingError) as error:
        config_from({key: value})
    assert key in str(error.value)
    assert str(shown) in str(error.value) or "empty" in str(error.value)


def test_two_values_that_do_not_fit_are_both_in_the_message() -> None:
    with pytest.raises(WrongSettingError, match=r"batch\.sequences = 16 .*micro_sequences = 5"):
        BatchConfig(sequences=16, micro_sequences=5)
    with pytest.raises(WrongSettingError, match=r"num_attention_heads = 4 .*key_value_heads = 3"):
        ModelConfig(num_attention_heads=4, num_key_value_heads=3)


@pytest.mark.parametrize(
    ("method", "every", "message"),
    [
        ("full", 10, "restart_every = 10 contradicts method = 'full'"),
        ("lora", 10, "restart_every = 10 contradicts method = 'lora'"),
        ("relora", 0, "ReLoRA needs schedule.restart_every"),
    ],
)
def test_only_relora_restarts(method: str, every: int, message: str) -> None:
    with pytest.raises(WrongSettingError, match=message):
        config_from({"method": method, "schedule.restart_every": every})


@pytest.mark.parametrize("methods", [["lora"], ["full", "lora"], ["lora", "full"]])
def test_adapters_that_would_never_learn_are_refused(methods: list[str]) -> None:
    phases = {"method": "phases", "phases.methods": methods, "phases.lengths": [9]}
    settings = {"method": "lora"} if methods == ["lora"] else phases
    with pytest.raises(WrongSettingError, match=r"zero_factors .* would learn nothing"):
        config_from({**settings, "relora.published.zero_factors": True})
    assert config_from({"method": "full", "relora.published.zero_factors": True})


def test_the_rank_stabilised_scale_divides_by_the_root_of_the_rank() -> None:
    assert AdapterConfig(alpha=8.0).scale(16) == 0.5
    assert AdapterConfig(alpha=8.0, rank_stabilised=True).scale(16) == 2.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "phases"}, "needs phases.methods"),
        ({"phases.methods": ["full"]}, "needs method = 'phases'"),
        ({"phases.methods": ["full", "lora"]}, "an entry for each of"),
        ({**PHASES, "phases.lengths": [1000]}, "leave no steps of schedule.steps = 1000"),
        ({**PHASES, "phases.lengths": [9], "phases.rates": [1.0]}, "phases.rates = .* an entry"),
        (
            {**PHASES, "phases.methods": ["lora", "full"], "phases.switch": "stable_rank"},
            "a first phase of full rank",
        ),
        ({"phases.switch": "stable_rank"}, "a first phase of full rank"),
        ({**PHASES, "schedule.restart_every": 5}, "restart_every = 5 contradicts"),
        ({"relora.rank_policy": "budget"}, "set adapter.rank_stabilised = true"),
        (
            {"relora.rank_policy": "budget", "adapter.rank_stabilised": True},
            "chooses ranks at restarts, but method = 'full' never restarts",
        ),
        ({"relora.minimum_rank": 5, "relora.maximum_rank": 4}, "= 4 is less than .* = 5"),
        (
            {"relora.published.factors_survive": True, "relora.rank_policy": "schedule"},
            "keep the old factors",
        ),
        (
            {"relora.published.pruned_moments": 0.9, "relora.rank_policy": "schedule"},
            "keep the old factors",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(WrongSettingError, match=message):
        config_from(settings)
