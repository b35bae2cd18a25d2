"""The series in the names of siblings, for known and for generated names."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankscope.checkpoints import name_words
from rankscope.checkpoints.sibling_names import read_siblings
from rankscope.checkpoints.steps import STAGE

KNOWN = {word for value in vars(name_words).values() if isinstance(value, frozenset | dict)
         for word in value}  # fmt: skip
EPOCHS = (1, 2, 10)


def counted(names: list[str]) -> list[tuple[list[str], list[int], str]]:
    """Each series: its names in order, their numbers, and what these count."""
    return [
        ([names[place] for _, place in one.members], [n for n, _ in one.members], one.unit)
        for one in read_siblings(names).series
    ]


@pytest.mark.parametrize(
    ("template", "numbers", "unit"),
    [
        ("epoch_{0}_loss_0.5{0}", (1, 2, 10), "epoch"),
        ("val_acc0.9{0}_epoch{0}", (1, 2, 10), "epoch"),
        ("{0}epoch", (1, 2, 10), "epoch"),
        ("epoch-{0:03d}-best", (1, 2, 10), "epoch"),
        ("Net.Epoch={0}", (1, 2, 10), "epoch"),
        ("weights.{0:02d}-0.53", (1, 2, 10), "step"),
        ("unet_e{0}", (1, 2, 10), "epoch"),
        ("ep{0}_it{0}00", (100, 200, 1000), "step"),
        ("ep{0}-ba{0}000-rank0", (1000, 2000, 10000), "step"),
        ("ckpt-{0}.000k", (1000, 2000, 10000), "step"),
        ("step_{0}00_psnr_31.5_ssim_0.9", (100, 200, 1000), "step"),
        ("agent_{0}00000", (100000, 200000, 1000000), "step"),
        ("episode {0}", (1, 2, 10), "step"),
        ("style_{0:09d}", (1, 2, 10), "step"),
        ("G_{0}00", (100, 200, 1000), "step"),
        ("{0}5_net_G", (15, 25, 105), "step"),
        ("run7-tokens{0}B", (10**9, 2 * 10**9, 10**10), "tokens"),
        ("step{0}-tokens{0}B", (1, 2, 10), "step"),
        ("a--val_loss=1.2{0}-step={0}-consumed_samples={0}32.0/weights", (1, 2, 10), "step"),
        ("rl_model_{0}000_steps", (1000, 2000, 10000), "step"),
        ("iter_{0:07d}/mp_rank_00/model_optim_rng", (1, 2, 10), "step"),
        ("2024-05-{0:02d}_10-30-00_step_{0}", (1, 2, 10), "step"),
        ("checkpoint_{0}_{0}000", (1000, 2000, 10000), "step"),
        ("step_{0}_elo_15{0}", (1, 2, 10), "step"),
        ("agent_{0}M_steps", (10**6, 2 * 10**6, 10**7), "step"),
        ("iter{0}.5m", (15 * 10**5, 25 * 10**5, 105 * 10**5), "step"),
        ("step_{0}e3", (1000, 2000, 10000), "step"),
        ("epoch{0}-lr0.00{0}", (1, 2, 10), "epoch"),
        ("step_{0}_lr{0}e-4_bs32", (1, 2, 10), "step"),
        ("samples_{0}", (1, 2, 10), "samples"),
        ("model-{0}000samples", (1000, 2000, 10000), "samples"),
        ("network-snapshot-kimg{0:06d}", (1000, 2000, 10000), "samples"),
    ],
)
def test_a_number_that_counts_makes_a_series(
    template: str, numbers: tuple[int, ...], unit: str
) -> None:
    names = [template.format(epoch) for epoch in EPOCHS]
    assert counted(names[::-1]) == [(names, list(numbers), unit)]


@pytest.mark.parametrize(
    "names",
    [
        ("seed1", "seed2", "seed3"),
        ("seed_100", "seed_200", "seed_300"),
        ("llama-1b", "llama-7b", "llama-70b"),
        ("opt-125m", "opt-350m"),
        ("ckpt-70m", "ckpt-160m"),
        ("net_1e3", "net_2e3"),
        ("llama-2", "llama-3"),
        ("net_v1", "net_v2"),
        ("Qwen2.5", "Qwen3.5"),
        ("mlp_64", "mlp_128", "mlp_256"),
        ("resnet50", "resnet101", "resnet152"),
        ("yolo-320", "yolo-640", "yolo-1280"),
        ("fold_001", "fold_002"),
        ("rank_000", "rank_100"),
        ("lr0.1", "lr0.01"),
        ("width-100", "width-200", "width-300"),
        ("model-00001-of-00002", "model-00002-of-00002"),
        ("2024-05-11", "2024-05-12"),
        ("net_1", "net_2"),
        ("max_steps_100", "max_steps_200"),
        ("sdxl-turbo-4-steps", "sdxl-turbo-8-steps"),
        ("model_part_1", "model_part_2"),
        ("0/model", "1/model"),
        # numbers that contradict each other
        ("epoch=0-step=100", "epoch=0-step=200", "epoch=1-step=100"),
        ("20240512_step_100", "20240511_step_200"),
        ("round_1/checkpoint-10", "round_1/checkpoint-20", "round_2/checkpoint-10"),
    ],
)
def test_a_number_that_does_not_count_is_named(names: tuple[str, ...]) -> None:
    found = read_siblings(names)
    assert not found.series
    assert found.alike == (tuple(range(len(names))),)


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (("actor_step_5", "critic_step_5", "actor_step_9", "critic_step_9"), [[0, 2], [1, 3]]),
        (("ckpt_5", "ckpt_5_ema", "ckpt_9", "ckpt_9_ema"), [[0, 2], [1, 3]]),
        (("step-5/unet", "step-5/vae", "step-9/unet", "step-9/vae"), [[0, 2], [1, 3]]),
        (("checkpoint-5", "checkpoint-5-merged", "checkpoint-9"), [[0, 2], [1]]),
        (("seed1_step_5", "seed1_step_9", "seed2_step_5", "seed2_step_9"), [[0, 1], [2, 3]]),
        (("agent3_step_5", "agent7_step_9"), [[0], [1]]),
        (("lr0.1_step_5", "lr0.1_step_9", "lr0.01_step_5"), [[0, 1], [2]]),
        (("step_5_lr0.1", "step_9_lr0.1", "step_5_lr0.01", "step_9_lr0.01"), [[0, 1], [2, 3]]),
        (("step_5_lr0.1", "step_9_lr0.01"), [[0, 1]]),
        (("step_5_top", "epoch_1_top", "epoch_2_top"), [[0], [1, 2]]),
        # the last, a copy, and the same number with other digits
        (("model_epoch_10", "model_epoch_20", "model_epoch_25_final"), [[0, 1, 2]]),
        (("net_10", "net_20", "net_30", "net_35_last"), [[0, 1, 2, 3]]),
        (("step_5", "step_9", "best_step_7"), [[0, 2, 1]]),
        (("checkpoint-5", "Copy of checkpoint-5", "checkpoint-9 (1)", "checkpoint-9"),
         [[0, 1, 2, 3]]),
        (("step_5", "step_05", "step_9"), [[0, 1, 2]]),
        # resumed, or restarted from an earlier step
        (("net_step_5", "net_step_9", "net_resumed_step_12"), [[0, 1, 2]]),
        (("epoch_1", "epoch_2", "epoch_3_cont", "epoch_4_cont"), [[0, 1, 2, 3]]),
        (("step_5", "step_9", "resumed_step_9", "resumed_step_12"), [[0, 1], [2, 3]]),
        (("step_5", "step_9", "resumed_step_7"), [[0, 1], [2]]),
        (("a_step_5", "a_step_9", "b_resumed_step_12"), [[0, 1], [2]]),
        # a single one that counts as others do
        (("fold1_epoch_1", "fold1_epoch_2", "fold2_epoch_1"), [[0, 1], [2]]),
        (("v1-100", "v1-200", "v2-100"), [[0, 1], [2]]),
    ],
)  # fmt: skip
def test_words_tell_one_series_from_another(
    names: tuple[str, ...], groups: list[list[int]]
) -> None:
    found = [[place for _, place in one.members] for one in read_siblings(names).series]
    assert sorted(map(sorted, found)) == sorted(map(sorted, groups))
    ordered = [one.members for one in read_siblings(names).series]
    assert all([n for n, _ in one] == sorted(n for n, _ in one) for one in ordered)


@pytest.mark.parametrize("end", ["final", "best", "last", "done"])
def test_one_for_the_end_makes_small_numbers_count(end: str) -> None:
    assert counted([f"net_{i}" for i in EPOCHS]) == []
    found = counted([*(f"net_{i}" for i in EPOCHS), f"{end}_net"])
    assert found == [([f"net_{i}" for i in EPOCHS], list(EPOCHS), "step")]


def test_a_second_checkpoint_of_a_step_is_not_of_the_series() -> None:
    assert counted(["epoch_3", "epoch_5", "best_epoch_3"]) == [
        (["epoch_3", "epoch_5"], [3, 5], "epoch")
    ]


def test_what_is_being_written_takes_no_part() -> None:
    assert counted(["checkpoint-5", "tmp-checkpoint-9"]) == [(["checkpoint-5"], [5], "step")]


def unknown_word(word: str) -> bool:
    return word not in KNOWN and STAGE.match(word) is None


WORDS = st.from_regex(r"[b-df-z]{3,7}", fullmatch=True).filter(unknown_word)
SEPARATORS = st.sampled_from(["_", "-", ".", "=", " "])
NUMBERS = st.lists(st.integers(0, 10**6), min_size=2, max_size=6, unique=True)
FRACTIONS = st.lists(st.integers(100, 999), min_size=6, max_size=6)
LABELS = st.sampled_from(
    sorted((*name_words.STEPS, *name_words.EPOCHS, "checkpoint", "ckpt", "episode"))
)
METRICS = st.sampled_from(["", "loss", "acc", "val_loss", "reward", "ppl"])


@settings(max_examples=150, deadline=None)
@given(
    first=st.one_of(st.just(""), WORDS),
    label=LABELS,
    last=st.one_of(st.just(""), WORDS),
    separator=SEPARATORS,
    numbers=NUMBERS,
    width=st.sampled_from([0, 7]),
    metric=METRICS,
    fractions=FRACTIONS,
    folder=st.booleans(),
)
@pytest.mark.slow
def test_a_counter_orders_the_series_in_any_name(
    first: str, label: str, last: str, separator: str, numbers: list[int], width: int,
    metric: str, fractions: list[int], folder: bool,
) -> None:  # fmt: skip
    def name(number: int, fraction: int) -> str:
        measured = f"{metric}{separator.replace('.', '_')}0.{fraction}" if metric else ""
        parts = (first, f"{label}{separator}{number:0{width}d}", measured, last)
        joined = separator.replace(".", "_").join(filter(None, parts))
        return f"{joined}/model" if folder else joined

    names = [name(*pair) for pair in zip(numbers, fractions, strict=False)]
    unit = "epoch" if label in name_words.EPOCHS else "step"
    ordered = [names[numbers.index(number)] for number in sorted(numbers)]
    assert counted(names) == [(ordered, sorted(numbers), unit)]


@settings(max_examples=150, deadline=None)
@given(
    first=st.one_of(st.just(""), WORDS),
    label=st.sampled_from(sorted(name_words.SETTINGS - name_words.LIMITS)),
    separator=st.sampled_from(["", "_", "-"]),
    numbers=NUMBERS,
    width=st.sampled_from([0, 3]),
    folder=st.booleans(),
)
def test_a_setting_makes_no_series_in_any_name(
    first: str, label: str, separator: str, numbers: list[int], width: int, folder: bool
) -> None:
    start = f"{first}_" if first else ""
    names = [f"{start}{label}{separator}{number:0{width}d}" for number in numbers]
    assert counted([f"{name}/model" for name in names] if folder else names) == []


@settings(max_examples=100, deadline=None)
@given(
    first=WORDS,
    numbers=NUMBERS,
    form=st.sampled_from(["-{}b", "_{}M", "-{}x", "-{:05d}-of-99999", "-v{}", "{}d", "_h{}"]),
)
def test_sizes_versions_and_shards_are_not_a_series(
    first: str, numbers: list[int], form: str
) -> None:
    assert counted([first + form.format(number % 10**5) for number in numbers]) == []


@settings(max_examples=100, deadline=None)
@given(first=WORDS, label=LABELS, seeds=NUMBERS, numbers=NUMBERS)
def test_each_seed_has_a_series_of_its_own(
    first: str, label: str, seeds: list[int], numbers: list[int]
) -> None:
    names = [f"{first}_seed{seed}_{label}_{n}" for seed in seeds for n in numbers]
    found = counted(names)
    assert sorted(steps for _, steps, _ in found) == [sorted(numbers)] * len(seeds)
    for series, _, _ in found:
        assert len({name.split("_")[1] for name in series}) == 1


@settings(max_examples=200, deadline=None)
@given(names=st.lists(st.text(max_size=30), max_size=8))
def test_any_text_is_a_name(names: list[str]) -> None:
    found = read_siblings(names)
    places = [place for one in found.series for _, place in one.members]
    assert len(places) == len(set(places)) and set(places) <= set(range(len(names)))


@pytest.mark.parametrize("word", ["step", "epoch-", "tokens", "-_", "1", "1.", "checkpoint_", "1e"])
def test_a_name_of_any_length_is_read_at_once(word: str) -> None:
    read_siblings([word * 4000, word * 4001])
