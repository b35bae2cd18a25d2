from __future__ import annotations

import re
from pathlib import Path

import pytest

from rankscope.dry_run.report import iter_dry_run
from rankscope.training.config import Config, PublishedConfig
from rankscope.training.config_file import flat_config, load_config
from rankscope.training.departures import departures
from rankscope.training.parameter_counts import parameter_counts
from rankscope.training.schedule import timeline

CONFIGS = Path(__file__).parents[2] / "configs"
PRESETS = sorted(path.stem for path in CONFIGS.glob("*.toml"))


def preset(name: str) -> Config:
    return load_config(CONFIGS / f"{name}.toml")


def sections_that_differ(one: str, other: str) -> set[str]:
    """Settings with another value, those of adapters and of restarts as one each."""
    a, b = flat_config(preset(one)), flat_config(preset(other))
    keys = {key for key in a if a[key] != b[key]}
    return {key if key.startswith("schedule") else key.partition(".")[0] for key in keys}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.slow
def test_every_preset_is_described_without_data(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no data/
    config = preset(name)
    lines = list(iter_dry_run(config, timing_seconds=0))
    assert max(map(len, lines)) <= 100
    assert f"into {config.out}" in lines[0]


def test_every_preset_has_a_folder_and_a_line_in_the_table() -> None:
    assert len({preset(name).out for name in PRESETS}) == len(PRESETS)
    table = (CONFIGS / "README.md").read_text(encoding="utf-8")
    long = [name for name in PRESETS if not name.endswith("-short")]
    assert [name for name in long if f"`{name}`" not in table] == []


@pytest.mark.parametrize(
    ("size", "full", "total", "trainable"),
    [
        ("tiny", 11_282_784, 11_682_144, 10_060_128),
        ("small", 64_595_328, 66_192_768, 40_240_512),
    ],
)
def test_the_models_of_weiss_have_the_published_sizes(
    size: str, full: int, total: int, trainable: int
) -> None:
    config = preset(f"weiss2025-{size}-full")
    (counts,) = parameter_counts(config, config.model.vocab_size)
    assert counts.total == counts.trainable == full
    for name in (f"weiss2025-{size}", f"weiss2025-{size}-as-published"):
        (counts,) = parameter_counts(preset(name), preset(name).model.vocab_size)
        assert (counts.total, counts.trainable) == (total, trainable)


@pytest.mark.parametrize(("size", "millions"), [("60m", 60), ("130m", 130), ("250m", 250)])
def test_the_models_of_lialin_have_the_size_in_their_name(size: str, millions: int) -> None:
    config = preset(f"relora-{size}")
    full, _ = parameter_counts(config, config.model.vocab_size)
    assert full.total == pytest.approx(millions * 1e6, rel=0.05)


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_the_pair_of_weiss_differs_in_adapters_and_schedule(size: str) -> None:
    differ = sections_that_differ(f"weiss2025-{size}", f"weiss2025-{size}-full")
    ours = {"method", "out", "adapter"}
    published = {"warmup_steps", "decay", "minimum_ratio", "restart_every", "restart_warmup_steps"}
    assert differ == ours | {f"schedule.{key}" for key in published}


@pytest.mark.parametrize("size", ["60m", "130m", "250m"])
def test_the_pair_of_lialin_differs_in_adapters_and_phases(size: str) -> None:
    differ = sections_that_differ(f"relora-{size}", f"relora-{size}-full")
    restarts = {"schedule.restart_every", "schedule.restart_warmup_steps"}
    assert differ == {"method", "out", "adapter", "phases"} | restarts
    relora, full = (timeline(preset(f"relora-{size}{end}")) for end in ("", "-full"))
    assert all(relora.learning_rate(t) == full.learning_rate(t) for t in range(0, 5000, 10))
    assert relora.learning_rate(9999) == pytest.approx(2 * full.learning_rate(9999))
    assert [boundary.step for boundary in relora.boundaries] == [5000, 10_000, 15_000]


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("weiss2025-tiny", "weiss2025-tiny-as-published"),
        ("weiss2025-small", "weiss2025-small-as-published"),
        ("demo-relora", "demo-as-published"),
    ],
)
def test_as_published_differs_by_the_switches_and_the_optimizer_alone(
    name: str, published: str
) -> None:
    ours, theirs = preset(name), preset(published)
    a, b = flat_config(ours), flat_config(theirs)
    switches = {f"relora.published.{key}" for key in PublishedConfig.__dataclass_fields__}
    optimizer = {"optimizer.weight_decay", "optimizer.clip"}
    assert {key for key in a if a[key] != b[key]} == {"out"} | switches | optimizer
    assert (theirs.optimizer.weight_decay, theirs.optimizer.clip) == (0.01, 0)
    every = range(ours.schedule.restart_every, ours.schedule.steps, ours.schedule.restart_every)
    assert [x.step for x in timeline(ours).boundaries] == [*every]
    assert [x.step for x in timeline(theirs).boundaries] == [step + 1 for step in every]


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_nothing_is_left_that_the_published_program_does_otherwise(size: str) -> None:
    left = departures(preset(f"weiss2025-{size}-as-published"))
    assert not any("Weiss" in line or "both" in line for line in left)


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_the_rates_of_weiss_et_al_end_as_in_the_paper(size: str) -> None:
    full, relora = (timeline(preset(f"weiss2025-{size}{end}")) for end in ("-full", ""))
    remaining = (200_000 - 19_999) / (200_000 - 2500)
    assert full.learning_rate(19_999) == pytest.approx(3e-4 * remaining)
    assert 0.98 * 3e-4 < relora.learning_rate(19_999) < 3e-4
    assert preset(f"weiss2025-{size}").adapter.scale(16) == 2.0


@pytest.mark.parametrize("name", [name for name in PRESETS if name.endswith("-short")])
def test_a_short_preset_is_a_tenth_of_its_long_one(name: str) -> None:
    short, long = flat_config(preset(name)), flat_config(preset(name.removesuffix("-short")))
    differ = {key for key in long if long[key] != short[key]}
    assert {key for key in differ if not key.startswith("schedule.")} == {
        *("out", "log.eval_every", "log.save_every")
    }
    counts = {key: (long[key], short[key]) for key in differ - {"out"}}
    assert all(a == 10 * b for a, b in counts.values())
    assert {"schedule.steps", "schedule.horizon", "schedule.warmup_steps"} <= {*counts}
    relora = {"schedule.restart_every", "schedule.restart_warmup_steps"}
    assert (relora <= {*counts}) == (short["method"] == "relora")
    assert len([name for name in PRESETS if name.endswith("-short")]) == 6


@pytest.mark.parametrize("name", ["demo-relora", "demo-phases", "demo-budget"])
def test_the_demonstrations_share_text_model_batches_and_length(name: str) -> None:
    one, full = preset(name), preset("demo-full")
    for section in ("data", "model", "batch", "optimizer", "log", "seed"):
        assert getattr(one, section) == getattr(full, section)
    assert one.schedule.steps == full.schedule.steps
    assert one.adapter.scale(4) == 2.0


def test_what_make_demo_trains_is_where_it_looks_for_it() -> None:
    makefile = (CONFIGS.parent / "Makefile").read_text(encoding="utf-8")
    (names,) = re.findall(r"^DEMO +:= \$\(addprefix ckpts/demo/,(.*)\)$", makefile, re.MULTILINE)
    assert len(names.split()) == 3
    for name in names.split():
        assert preset(f"demo-{name}").out == f"ckpts/demo/{name}"


def test_the_warm_start_has_the_rates_of_the_pair() -> None:
    phases = preset("demo-phases")
    rates = [phases.schedule.learning_rate * rate for rate in phases.phases.rates]
    pair = [preset(name).schedule.learning_rate for name in ("demo-full", "demo-relora")]
    assert rates == pytest.approx(pair)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_saves_at_whole_cycles_or_says_so(name: str) -> None:
    config, text = preset(name), (CONFIGS / f"{name}.toml").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("save_every")]
    if (cycle := config.schedule.restart_every) == 0:
        low_rank = preset(name.replace("-full", "").replace("demo", "demo-relora"))
        assert config.log.save_every == low_rank.log.save_every  # the same windows
    elif config.log.save_every % cycle:
        assert "of a cycle" in line
        assert "--windows cycles" in line
