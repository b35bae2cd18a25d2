from __future__ import annotations

from pathlib import Path

import pytest

from rankscope.errors import WrongSettingError
from rankscope.training.config import Config
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
