"""The cost of opening series of 400 GB: files with real headers and holes for data."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LAYERS, WIDTH, HIDDEN, VOCABULARY = 16, 2048, 8192, 50304  # about a billion parameters
SHAPES = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (WIDTH, WIDTH),
    "self_attn.v_proj": (WIDTH, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (HIDDEN, WIDTH),
    "mlp.up_proj": (HIDDEN, WIDTH),
    "mlp.down_proj": (WIDTH, HIDDEN),
}
CONFIG = {"model_type": "llama", "hidden_size": WIDTH, "num_attention_heads": 16}


def write_holes(path: Path, tensors: dict[str, tuple[int, int]]) -> int:
    """Write a safetensors file without its data, which reads as zeros; return the header's size."""
    header, end = {}, 0
    for name, (rows, columns) in tensors.items():
        size = 2 * rows * columns
        header[name] = {
            "dtype": "BF16",
            "shape": [rows, columns],
            "data_offsets": [end, end + size],
        }
        end += size
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + end)
    return 8 + len(raw)


def write_series(run: Path, steps: int, *, shards: int) -> int:
    """Write a series of sharded checkpoints; return the number of bytes that must be read."""
    names = {f"model.layers.{i}.{n}.weight": s for i in range(LAYERS) for n, s in SHAPES.items()}
    names["model.embed_tokens.weight"] = names["lm_head.weight"] = (VOCABULARY, WIDTH)
    parts = [dict(list(names.items())[i::shards]) for i in range(shards)]
    files = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
    index = {name: file for file, part in zip(files, parts, strict=True) for name in part}
    size = 0
    for step in range(steps):
        folder = run / f"step-{step * 1000}"
        folder.mkdir(parents=True)
        beside = {
            "config.json": json.dumps(CONFIG),
            "model.safetensors.index.json": json.dumps({"weight_map": index}),
        }
        for name, text in beside.items():
            size += (folder / name).write_text(text)
        size += sum(write_holes(folder / f, part) for f, part in zip(files, parts, strict=True))
    return size


def told_by(program: str, run: Path) -> list[float]:
    """Numbers that a program in another process prints about this run."""
    done = subprocess.run(
        [sys.executable, "-c", program, str(run)], capture_output=True, text=True, check=True
    )
    return [float(word) for word in done.stdout.split()]


READ = """
import sys
from pathlib import Path
from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.families.family_files import families

def bytes_read():
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])

families(), open_run  # what the program itself is made of does not count
import rankscope.checkpoints.layouts
before = bytes_read()
run = open_run(sys.argv[1])
opened = bytes_read()
parameters = sum(len(checkpoint.read().parameters) for checkpoint in run)
print(opened - before, bytes_read() - opened, parameters)
"""

PLANNED = """
import resource, sys
from rankscope.analysis.plan import SpectraPlans
from rankscope.analysis.request import Selection
from rankscope.checkpoints.discovery import survey

tasks = sum(len(plan.tasks) for plan in SpectraPlans(survey(sys.argv[1:]), Selection()))
print(tasks, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="asks the kernel what was read")
@pytest.mark.slow
def test_opening_reads_headers_only(tmp_path: Path) -> None:
    steps = 60
    size = write_series(tmp_path, steps, shards=3)
    opening, reading, parameters = told_by(READ, tmp_path)
    assert parameters == steps * (LAYERS * len(SHAPES) + 2)
    assert opening < steps * 1000  # folders are listed, no header is read
    assert reading < 2 * size


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted otherwise elsewhere")
@pytest.mark.slow
def test_memory_grows_neither_with_checkpoints_nor_with_shards(tmp_path: Path) -> None:
    write_series(tmp_path / "short", 5, shards=2)
    write_series(tmp_path / "long", 100, shards=8)
    (few, less), (many, more) = (told_by(PLANNED, tmp_path / run) for run in ("short", "long"))
    assert many > 20 * few
    assert more < less + 8  # megabytes
