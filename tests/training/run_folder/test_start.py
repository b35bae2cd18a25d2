from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rankscope.errors import RankscopeError
from rankscope.training.config import Config
from rankscope.training.config_file import load_config
from rankscope.training.run_folder.start import find_start
from rankscope.training.train import train
from tests.conftest import dead_mark

MakeConfig = Callable[..., Config]


def test_a_new_folder_begins_at_step_zero(make_config: MakeConfig) -> None:
    start = find_start(make_config(), resume=False)
    assert (start.position.step, start.state, start.warnings) == (0, None, [])


def test_the_configuration_of_a_run_is_stored_whole(make_config: MakeConfig) -> None:
    config = make_config({"adapter.rank_stabilised": True})
    train(config, max_minutes=0.0)
    assert load_config(Path(config.out) / "config.toml") == config


def test_the_environment_says_with_what_it_was_trained(make_config: MakeConfig) -> None:
    config = make_config()
    train(config, max_minutes=0.0)
    stored = json.loads((Path(config.out) / "environment.json").read_bytes())
    assert stored["torch"] == torch.__version__
    assert stored["threads"] == 1
    assert stored["training_tokens"] + stored["validation_tokens"] == 4001
    assert len(stored["data_blake2b"]) == len(stored["config_blake2b"]) == 32


@pytest.mark.slow
def test_another_number_of_threads_is_a_warning(
    make_config: MakeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config()
    train(config, max_minutes=0.0)
    torch.set_num_threads(2)
    train(config, resume=True, max_minutes=0.0)
    assert "warning: threads was 1 and is now 2" in capsys.readouterr().err


def test_a_text_brings_its_tokenizer_into_the_folder(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer

    text = tmp_path / "text.txt"
    text.write_text("a quick brown fox " * 60)
    config = make_config({"data.source": str(text)})
    train(config, max_minutes=0.0)
    tokenizer = Tokenizer.from_file(str(Path(config.out) / "tokenizer.json"))
    assert tokenizer.encode("fox").ids == list(b"fox")
    shape = json.loads((Path(config.out) / "checkpoints/step-00000000/config.json").read_bytes())
    assert shape["vocab_size"] == 257
    assert shape["eos_token_id"] == tokenizer.token_to_id("<|endoftext|>") == 256


def test_a_run_without_its_states_is_not_overwritten(make_config: MakeConfig) -> None:
    config = make_config()
    train(config)
    shutil.rmtree(Path(config.out) / "state")
    for resume in (False, True):
        with pytest.raises(RankscopeError, match="checkpoints up to step-00000018, but no state"):
            train(config, resume=resume)


def test_what_killed_writers_left_is_swept_at_the_start(make_config: MakeConfig) -> None:
    config = make_config()
    train(config, max_minutes=0.0)
    left = Path(config.out) / "checkpoints" / f".tmp-step-00000001-{dead_mark()}-0"
    left.mkdir()
    train(config, resume=True)
    assert not left.exists()
