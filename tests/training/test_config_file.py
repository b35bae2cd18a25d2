from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rankscope.errors import RankscopeWarning, WrongSettingError
from rankscope.training.config import AdapterConfig, Config, PublishedConfig
from rankscope.training.config_file import (
    config_digest,
    config_from,
    differences,
    flat_config,
    load_config,
    to_toml,
)

CONFIGS = Path(__file__).parents[2] / "configs"


def test_a_written_configuration_reads_back_equal(tmp_path: Path) -> None:
    config = config_from(
        {
            "method": "relora",
            "out": 'a "strange"\tname\\\x7f\u00e4',
            "schedule.restart_every": 7,
            "optimizer.eps": 1e-12,
            "adapter.rank_stabilised": True,
            "adapter.target_modules": ["q_proj", "down_proj"],
        }
    )
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    assert load_config(path) == config


def test_a_later_override_wins_over_an_earlier_one_and_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("seed = 1\n[schedule]\nsteps = 50\nwarmup_steps = 5\n")
    config = load_config(path, overrides=["seed=2", "seed = 3", "schedule.steps=60", "out=here"])
    assert (config.seed, config.schedule.steps, config.out) == (3, 60, "here")
    assert config.schedule.warmup_steps == 5


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("schedule.learning_rat", "schedule.learning_rate"),
        ("learning_rate", "schedule.learning_rate"),
        ("model.rank", "adapter.rank"),
        ("sed", "seed"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_one_that_was_meant(key: str, meant: str) -> None:
    with pytest.raises(WrongSettingError, match=f"unknown setting '{key}'; did you mean '{meant}'"):
        config_from({key: 1})


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("seed", 1.0, "an integer"),
        ("seed", True, "an integer"),
        ("schedule.learning_rate", "fast", "a number"),
        ("adapter.rank_stabilised", 1, "true or false"),
        ("adapter.target_modules", "q_proj", "a list of strings"),
        ("adapter.target_modules", [1], "a list of strings"),
        ("method", 3, "a string"),
    ],
)
def test_a_value_of_another_type_is_refused(key: str, value: object, wanted: str) -> None:
    with pytest.raises(WrongSettingError, match=f"{key} = .* must be {wanted}"):
        config_from({key: value})


def test_an_integer_is_a_number() -> None:
    assert config_from({"adapter.alpha": 8}).adapter.alpha == 8.0


def test_a_section_is_not_a_setting() -> None:
    with pytest.raises(WrongSettingError, match="unknown setting 'schedule'"):
        config_from({"schedule": 3})
    with pytest.raises(WrongSettingError, match=r"unknown setting 'seed\.x'"):
        config_from({"seed.x": 3})


@pytest.mark.parametrize("content", [b"seed = ", b"seed = 1\nseed = 2", b"\xff\xfe", None])
def test_an_unreadable_file_is_named_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WrongSettingError) as error:
        load_config(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_override_without_a_value_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("")
    with pytest.raises(WrongSettingError, match="'seed' is not of the form key=value"):
        load_config(path, overrides=["seed"])


def test_differences_name_what_decides_the_weights_and_nothing_else() -> None:
    old = Config()
    assert differences(old, config_from({"out": "x", "log.save_every": 3, "device": "cuda"})) == []
    assert differences(old, config_from({"seed": 5})) == ["seed was 1 and is now 5"]


def test_the_digest_changes_with_what_decides_the_weights() -> None:
    assert config_digest(Config()) == config_digest(config_from({"out": "x"}))
    assert config_digest(Config()) != config_digest(config_from({"seed": 5}))


def test_the_two_demo_runs_differ_in_the_method_alone() -> None:
    full = flat_config(load_config(CONFIGS / "demo-full.toml"))
    relora = flat_config(load_config(CONFIGS / "demo-relora.toml"))
    different = {key for key in full if full[key] != relora[key]}
    assert different <= {
        "method",
        "out",
        "adapter.rank",
        "adapter.alpha",
        "schedule.restart_every",
        "schedule.restart_warmup_steps",
        "schedule.learning_rate",
    }


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_configuration_is_valid(path: Path) -> None:
    assert load_config(path).out.startswith("ckpts/")


def test_another_method_drops_what_only_that_of_the_file_uses() -> None:
    path = CONFIGS / "demo-relora.toml"
    with pytest.warns(
        RankscopeWarning, match="does not use its .*schedule.restart_every"
    ) as caught:
        config = load_config(path, overrides=["method=full"])
    assert len(caught) == 1
    assert config.schedule.restart_every == 0
    assert config.adapter == AdapterConfig()
    assert config.model == load_config(path).model


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("demo-relora", "lora"),
        ("demo-budget", "full"),
        ("demo-budget", "lora"),
        ("demo-phases", "full"),
        ("demo-phases", "relora"),
        ("demo-phases", "lora"),
        ("weiss2025-tiny-as-published", "full"),
        ("weiss2025-tiny-as-published", "lora"),
    ],
)
def test_every_method_can_be_chosen_for_a_preset(name: str, method: str) -> None:
    with pytest.warns(RankscopeWarning):
        config = load_config(CONFIGS / f"{name}.toml", overrides=[f"method={method}"])
    assert config.method == method


def test_low_rank_settings_stay_for_another_low_rank_method() -> None:
    with pytest.warns(RankscopeWarning):
        config = load_config(CONFIGS / "demo-budget.toml", overrides=["method=lora"])
    assert config.adapter.rank_stabilised
    assert (config.relora.rank_policy, config.relora.a_init) == ("fixed", "grad_sample")


def test_adapters_that_never_restart_do_not_begin_with_what_ends_at_a_restart() -> None:
    path = CONFIGS / "weiss2025-tiny-as-published.toml"
    with pytest.warns(RankscopeWarning, match="zero_factors"):
        config = load_config(path, overrides=["method=lora"])
    kept = load_config(path).relora.published
    assert config.relora.published == replace(
        kept, zero_factors=False, factors_survive=False, pruned_moments=0.0
    )


def test_the_method_of_the_file_drops_nothing() -> None:
    path = CONFIGS / "demo-relora.toml"
    assert load_config(path, overrides=["method=relora"]) == load_config(path)


def test_what_is_chosen_beside_a_method_is_not_dropped() -> None:
    chosen = ["method=full", "schedule.restart_every=50"]
    with pytest.raises(WrongSettingError, match="restart_every = 50 contradicts method = 'full'"):
        load_config(CONFIGS / "demo-relora.toml", overrides=chosen)
    with pytest.warns(RankscopeWarning, match="adapter.rank"):
        load_config(
            CONFIGS / "demo-relora.toml", overrides=["method=full", "schedule.restart_every=0"]
        )


def test_one_name_switches_on_everything_that_a_program_does() -> None:
    relora = CONFIGS / "weiss2025-tiny.toml"
    config = load_config(relora, overrides=["relora.published=weiss2025"])
    published = load_config(CONFIGS / "weiss2025-tiny-as-published.toml")
    assert config.relora.published == published.relora.published
    assert all(flat_config(config)[key] for key in flat_config(config) if ".published." in key)
    theirs = load_config(relora, overrides=["relora.published=lialin2023"]).relora.published
    assert not (theirs.merge_without_scale or theirs.factors_survive)


def test_a_switch_wins_over_the_program_and_the_program_over_the_file() -> None:
    path = CONFIGS / "weiss2025-tiny-as-published.toml"
    chosen = ["relora.published.dropout=0.5", "relora.published=none"]
    published = load_config(path, overrides=chosen).relora.published
    assert published == PublishedConfig(dropout=0.5)


def test_an_unknown_program_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(WrongSettingError, match="choose from none, lialin2023, weiss2025"):
        config_from({"relora.published": "all of it"})


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)
    return folder


LONG = """method = "relora"
seed = 1
[schedule]
steps = 50
warmup_steps = 5
restart_every = 10
[adapter]
rank = 3
"""


def test_a_file_says_only_what_differs_from_its_base(tmp_path: Path) -> None:
    """The same as the whole text with the changes made by hand, over two generations."""
    write(tmp_path, long=LONG)
    write(tmp_path, other='base = "long.toml"\nout = "b"\n[relora]\npublished = "weiss2025"\n')
    write(tmp_path, last='base = "other.toml"\nout = "c"\n[schedule]\nsteps = 40\n')
    by_hand = LONG.replace("50", "40") + 'rank_stabilised = false\n[relora]\npublished="weiss2025"'
    write(tmp_path, whole='out = "c"\n' + by_hand)
    assert load_config(tmp_path / "last.toml") == load_config(tmp_path / "whole.toml")
    assert load_config(tmp_path / "last.toml", overrides=["seed=9"]).seed == 9


def test_another_method_leaves_out_what_the_base_has_for_its_own(tmp_path: Path) -> None:
    write(tmp_path, long=LONG, full='base = "long.toml"\nmethod = "full"\n')
    full = load_config(tmp_path / "full.toml")
    assert (full.method, full.schedule.restart_every, full.adapter) == ("full", 0, AdapterConfig())
    assert full.schedule.warmup_steps == 5


@pytest.mark.parametrize(
    ("base", "told"),
    [
        ('base = "absent.toml"', r"absent\.toml: cannot be read"),
        ("base = 3", "a.toml: base = 3 must be the name of a file"),
        ('base = "a.toml"', "a.toml: base = 'a.toml' is based on this file itself"),
        ('base = "b.toml"', "b.toml: base = 'a.toml' is based on this file itself"),
        ('base = "torn.toml"', "torn.toml: is not a TOML file"),
    ],
)
def test_a_base_that_cannot_be_had_is_named(base: str, told: str, tmp_path: Path) -> None:
    write(tmp_path, a=base, b='base = "a.toml"', torn="[")
    with pytest.raises(WrongSettingError, match=told):
        load_config(tmp_path / "a.toml")
