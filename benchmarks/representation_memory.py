"""What looking into a model takes beside evaluating it: memory, and processor time.

    python -m benchmarks.representation_memory [--width 512] [--layers 8]

Writes a Llama-style model of random weights and a text of random words, and runs ``rankscope
evaluate`` and ``rankscope represent``, without and with ``--energy weight``, on about as many
tokens, each in a process of its own.
Memory is the largest PSS, which may be at most 1.5 times that of evaluating. Linux only.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

from benchmarks.memory import Measured, measure

MOST = 1.5
WORDS, DOCUMENTS, LETTERS = 160, 300, "abcdefghijklmnopqrstuvwxyz"


def write_model(folder: Path, width: int, layers: int) -> None:
    """A model with the tokenizer of bytes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rankscope.training.data.tokenizer import byte_tokenizer

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=8,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    byte_tokenizer().save(str(folder / "tokenizer.json"))


def write_text(path: Path) -> None:
    """Documents of random words."""
    draw = random.Random(0)
    words = ["".join(draw.choices(LETTERS, k=draw.randint(2, 8))) for _ in range(2000)]
    documents = (" ".join(draw.choices(words, k=WORDS)) for _ in range(DOCUMENTS))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))


def taken(command: str, folder: Path, *options: str) -> Measured:
    """What a command takes."""
    with tempfile.TemporaryDirectory() as out:
        given = [command, str(folder / "model"), "--text", str(folder / "text.jsonl")]
        program = [sys.executable, "-m", "rankscope", *given, "--out", out, "--threads", "1"]
        return measure([*program, *options], watch_memory=True)


def main() -> None:
    """Print a line for each command, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model", given.width, given.layers)
        write_text(folder / "text.jsonl")
        # About as many tokens as a probe has.
        first = ("--prefix", "none", "--no-document-perplexity", "--max-documents", "19")
        scored = taken("evaluate", folder, *first)
        alone = ("--prefix", "none", "--compare", "none")
        seen = taken("represent", folder, *alone)
        met = taken("represent", folder, *alone, "--energy", "weight")
    ratios = []
    for title, one in (("evaluate", scored), ("represent", seen), ("with --energy", met)):
        ratios.append((one.pss or 0) / (scored.pss or 1))
        print(
            f"{title:<13} {one.pss or 0:6.0f} MB, {ratios[-1]:.2f} times   "
            f"{one.processor:6.1f} s of processor time"
        )
    print(f"at most {MOST} times the memory is allowed")
    sys.exit(max(ratios) > MOST)


if __name__ == "__main__":
    main()
