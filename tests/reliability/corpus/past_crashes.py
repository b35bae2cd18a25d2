"""Every file that once made a reader crash, mislead or lose the rest of a run, by what it was.

Each is made from an honest folder. What a reader may do with it now is in ``fates``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from rankscope.checkpoints.files.config_files import read_yaml
from tests.reliability.corpus import damage
from tests.reliability.corpus.damage import Change, adapter_says, merge_with, model_then
from tests.reliability.fuzzing import honest, readers, results_readers, zip_level
from tests.reliability.fuzzing.readers import Reader, Seen

NOT_MEASURED = ("told", "refused")
DEEP = b"[" * 100_000


@dataclass(frozen=True)
class Past:
    """A crash of the past."""

    name: str
    write: Change
    read: Reader = readers.analyse_into
    fates: tuple[str, ...] = NOT_MEASURED


def npz_of_huge_shape(folder: Path) -> None:
    honest.arrays(folder)
    path = folder / "model_1.npz"
    members = zip_level.members_of(path.read_bytes())
    name, content, how = members[0]
    header = content.replace(b"(4, 3), }" + b" " * 40, b"(10**40, 10**40), }" + b" " * 30)
    assert header != content
    path.write_bytes(zip_level.written([(name, header, how), *members[1:]]))


def yaml(folder: Path) -> Seen:
    """What a YAML file holds."""
    return Seen({"content": repr(read_yaml(folder / "config.yaml"))})


def layers_of(digits: int) -> str:
    return f"model.layers.{'9' * digits}.self_attn.q_proj.weight"


NAMES = {
    "a carriage return": "a\rb.weight",
    "a lone surrogate": "model.layers.0.self_attn.\ud800.weight",
    "half a character": "model.layers.0.self_attn.\udcff.weight",
    "a layer of 22 digits": layers_of(22),
    "a layer of 5000 digits": layers_of(5000),
    "an expert of 22 digits": f"model.layers.0.mlp.experts.{'9' * 22}.up_proj.weight",
}
PATTERNS = {
    "a flag, valid alone only": "(?i)q_proj",
    "900 open brackets": "(" * 900,
    "a repeat of 20 digits": "a{99999999999999999999}",
}
RESULTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "record has another number": (
        "analysis.json",
        partial(damage.replaced, old=b'"rows": ', new=b'"rows": 1'),
    ),
    "record is a list": ("analysis.json", lambda path: path.write_text("[1]")),
    "record nests deeply": ("analysis.json", lambda path: path.write_bytes(DEEP)),
    "table is cut": ("metrics.parquet", partial(os.truncate, length=300)),
    "table is empty": ("metrics.parquet", partial(os.truncate, length=0)),
    "steps are words": ("metrics.parquet", partial(damage.with_column, name="step", value="x")),
    "steps are lost": ("metrics.parquet", partial(damage.with_column, name="step", value=None)),
    "names are lost": ("metrics.parquet", partial(damage.with_column, name="run", value=None)),
    "scores are words": (
        "evaluation.parquet",
        partial(damage.with_column, name="value", value="x"),
    ),
    "subspaces are cut": ("subspaces.parquet", partial(os.truncate, length=300)),
}
DRAWN: dict[str, tuple[str, Callable[[Path], object], Reader]] = {
    "log has a word for a step": (
        "training.csv",
        partial(damage.replaced, old=b"run,1,", new=b"run,x,"),
        results_readers.draw("loss"),
    ),
    "rows are all of one step": (
        "metrics.parquet",
        partial(damage.with_column, name="step", value=1),
        results_readers.write_page,
    ),
}
SCORES: dict[str, tuple[str, Callable[[Path], object]]] = {
    **{
        f"record names {what}": ("evaluation.json", partial(damage.recorded_scores, **entry))
        for what, entry in {
            "a list as a run": {"run": ["run"]},
            "a number as a task": {"task": 1},
            "a place outside": {"folder": "../../.."},
        }.items()
    },
    "pairs are counted in words": (
        "scores/blimp/step-00000001.safetensors",
        partial(damage.paradigm_with, count="two"),
    ),
    "pairs are more than their scores": (
        "scores/blimp/step-00000001.safetensors",
        partial(damage.paradigm_with, count=5),
    ),
}
PAST = (
    *(
        Past(
            f"tensor's name with {what}",
            model_then(partial(damage.renamed_tensor, name=name)),
            fates=("as before", *NOT_MEASURED),
        )
        for what, name in NAMES.items()
    ),
    Past(
        "shape of more digits than Python prints",
        model_then(partial(damage.with_entry, old="[4,3]", new=f"[1{'0' * 4200},1{'0' * 4200}]")),
    ),
    Past(
        "dtype that is a list", model_then(partial(damage.with_entry, old='"F32"', new='["F32"]'))
    ),
    Past("dtype that is an object", model_then(partial(damage.with_entry, old='"F32"', new="{}"))),
    Past("format of four bits", model_then(partial(damage.with_entry, old='"F32"', new='"F4"'))),
    Past("array of a shape that is no number", npz_of_huge_shape),
    Past("alpha beyond floats", adapter_says(lora_alpha=10**400)),
    Past("alpha of a pattern beyond floats", adapter_says(alpha_pattern={"q_proj": 10**400})),
    *(
        Past(f"pattern with {what}", adapter_says(alpha_pattern={pattern: 2}))
        for what, pattern in PATTERNS.items()
    ),
    Past("merge whose scale is empty", merge_with(**{"scale": np.empty(0)})),
    Past("merge of factors with one axis", merge_with(lora_A=np.ones(3), lora_B=np.ones(4))),
    Past("merge of factors that do not fit", merge_with(lora_A=np.ones((2, 3)))),
    Past("log of deep brackets", damage.log_is(DEEP), fates=("as before", *NOT_MEASURED)),
    Past(
        "log with a lone surrogate",
        damage.log_is(b'{"step": 1, "loss": 2.0, "note": "\\ud800"}\n'),
        fates=("as before", *NOT_MEASURED),
    ),
    Past(
        "history that is a number",
        damage.trainer_state_is(
            lambda path: path.write_text('{"global_step": 2, "log_history": 5}')
        ),
        fates=("as before", *NOT_MEASURED),
    ),
    Past(
        "state that is written by half",
        damage.trainer_state_is(lambda path: path.write_text('{"global_st')),
        fates=("as before", *NOT_MEASURED),
    ),
    Past(
        "state that is a folder",
        damage.trainer_state_is(Path.mkdir),
        fates=("as before", *NOT_MEASURED),
    ),
    Past(
        "state that is a pipe",
        damage.trainer_state_is(os.mkfifo),
        fates=("as before", *NOT_MEASURED),
    ),
    Past("two folders of one step", damage.twice_the_same_step),
    Past(
        "run whose name is not UTF-8",
        damage.model_called(b"run-\xff"),
        fates=("as before", *NOT_MEASURED),
    ),
    Past("shard that the index leaves out", damage.without_an_entry_of_the_index),
    *(
        Past(f"YAML with {text}", damage.file_of("config.yaml", f"a: {text}".encode()), yaml)
        for text in (
            "!!bool x",
            "[" * 3000,
            "!!int ''",
            "!!float ''",
            "!!timestamp x",
            "!!python/name:os.fork",
        )
    ),
    *(
        Past(
            f"results whose {what}", damage.results_then(name, change), results_readers.read_results
        )
        for what, (name, change) in RESULTS.items()
    ),
    *(
        Past(f"page of results whose {what}", damage.results_then(name, change), read)
        for what, (name, change, read) in DRAWN.items()
    ),
    *(
        Past(
            f"evaluation whose {what}",
            damage.results_then(name, change),
            results_readers.read_earlier_scores,
            ("as before",) if name == "evaluation.json" else ("told",),
        )
        for what, (name, change) in SCORES.items()
    ),
)
