from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rankscope.errors import RankscopeError
from rankscope.training.data.token_files import iter_token_documents, open_token_file

IDS = np.arange(300)


def llm_c(magic: int, version: int, ids: np.ndarray) -> bytes:
    header = np.zeros(256, dtype="<i4")
    header[:3] = magic, version, len(ids)
    return header.tobytes() + ids.tobytes()


@pytest.mark.parametrize(
    ("content", "dtype"),
    [
        (llm_c(20240520, 1, IDS.astype("<u2")), None),
        (llm_c(20240801, 7, IDS.astype("<u4")), None),
        (llm_c(20240801, 7, IDS.astype("<u4")), "uint16"),
        (IDS.astype("<u2").tobytes(), "uint16"),
        (IDS.astype("<u4").tobytes(), "uint32"),
    ],
)
@pytest.mark.parametrize("name", ["train.bin", "part-0.npy"])
def test_the_content_says_what_a_token_file_is(
    tmp_path: Path, content: bytes, dtype: str | None, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert open_token_file(path, dtype=dtype).tolist() == IDS.tolist()


@pytest.mark.parametrize("name", ["ids.npy", "ids.bin"])
def test_a_numpy_file_is_read_as_it_says(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        np.save(file, IDS.astype(">u4"))
    assert open_token_file(tmp_path / name, dtype="uint16").tolist() == IDS.tolist()


@pytest.mark.parametrize(
    ("content", "dtype", "message"),
    [
        (IDS.astype("<u2").tobytes(), None, "`dtype` is uint16 or uint32"),
        (b"", None, "`dtype`"),
        (b"", "uint16", "cannot be read as token ids"),
        (b"odd", "uint16", "cannot be read as token ids"),
        (llm_c(20240520, 2, IDS.astype("<u2")), None, "version 2, but only version 1 is known"),
        (llm_c(20240520, 1, IDS.astype("<u2"))[:-1], None, "299.5 .* header says 300"),
        (llm_c(20240520, 1, IDS.astype("<u2")) + b"..", None, "301 .* header says 300"),
        (llm_c(20240801, 7, IDS.astype("<u2")), None, "150 .* header says 300"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(
    tmp_path: Path, content: bytes, dtype: str | None, message: str
) -> None:
    path = tmp_path / "train.bin"
    path.write_bytes(content)
    with pytest.raises(RankscopeError, match=message) as error:
        open_token_file(path, dtype=dtype)
    assert str(error.value).startswith(f"{path}: ")


def test_ids_are_cut_after_each_end_of_document() -> None:
    ids = np.array([5, 1, 2, 5, 3, 5, 4], dtype=np.uint16)
    assert [d.tolist() for d in iter_token_documents(ids, 5)] == [[5], [1, 2, 5], [3, 5], [4]]
    assert [d.tolist() for d in iter_token_documents(ids, None)] == [ids.tolist()]
    assert [d.tolist() for d in iter_token_documents(ids[:4], 5)] == [[5], [1, 2, 5]]
