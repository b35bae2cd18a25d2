"""Bad files of ``torch.save``: archives, and what their pickles name; families 39 to 48 and 56."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any
from zipfile import ZIP_DEFLATED as DEFLATED

import numpy as np

from tests.reliability import bad as tables
from tests.reliability.bad import Bad, K, flipped, honest, matrix, pt, unzipped, zipped

Q2, K2 = matrix(2, 0), matrix(2, 1)
make = (partial(one, place="torch") for one in (tables.whole, tables.fine, tables.lost))
bad, fine, lost = make


def weights(**more: Any) -> dict[str, Any]:
    """The honest tensors of torch, and more entries."""
    import torch

    return {name: torch.from_numpy(array) for name, array in honest().items()} | more


class Runs:
    """Unpickled as usual, it calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


class Config:
    """An object that only its module can make."""


def saved() -> bytes:
    """An honest file."""
    return pt(weights())


def changed(name: str, content: bytes | None) -> bytes:
    """The honest zip with an entry replaced, or without it."""
    held = unzipped(saved()) | {f"archive/{name}": content}
    return zipped({one: data for one, data in held.items() if data is not None})


def beside(*names: str) -> bytes:
    """The honest zip with other entries beside its own."""
    return zipped(unzipped(saved()) | dict.fromkeys(names, b"x"))


def with_program(program: bytes) -> bytes:
    """A zip with any pickle, and no storage."""
    return zipped({"a/data.pkl": program, "a/version": b"3\n"})


def storage_too_small() -> bytes:
    return changed("data/0", Q2.tobytes()[:40])


def bomb() -> bytes:
    """An honest pickle, and a storage that is compressed to a thousandth."""
    content = io.BytesIO(with_program(unzipped(saved())["archive/data.pkl"]))
    with zipfile.ZipFile(content, "a", DEFLATED) as archive:
        archive.writestr("a/data/0", bytes(10**7))
    return content.getvalue()


def entry_twice() -> bytes:
    """A zip with two storages of one name, the second of other numbers."""
    content = io.BytesIO(saved())
    with zipfile.ZipFile(content, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("archive/data/0", Q2.tobytes()[::-1])
    return content.getvalue()


def marked_encrypted() -> bytes:
    """The honest zip, whose directory says that its entries are encrypted."""
    content = bytearray(saved())
    place = content.find(b"PK\1\2")
    while place != -1:
        content[place + 8] |= 1
        place = content.find(b"PK\1\2", place + 4)
    return bytes(content)


def module() -> bytes:
    """A module of torch, pickled whole, whose parameters have the honest names."""
    import torch

    layer = torch.nn.ModuleDict(
        {name: torch.nn.Linear(4, 6, bias=False) for name in ("q_proj", "k_proj")}
    )
    for name, array in honest().items():
        layer[name.split(".")[-2]].weight.data = torch.from_numpy(array)
    for name in ("self_attn", "0", "layers", "model"):
        layer = torch.nn.ModuleDict({name: layer})
    return pt(layer)


SYSTEM = b"cos\nsystem\n(S'mkdir ran'\ntR."
SYSTEM_4 = b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\tmkdir ran\x85R."
GETATTR = b"cbuiltins\ngetattr\n(cos\nsystem\nS'x'\ntR."
DOTTED = b"ctorch\nos.system\n(S'mkdir ran'\ntR."
EVAL, EXEC = "__import__('os').mkdir('ran')", "import os; os.mkdir('ran')"
ARCHIVES: list[Bad] = [
    bad("torch empty", 39, b"", "empty", "is empty"),
    bad("torch cut by one byte", 40, lambda: saved()[:-1], "cut-short", "cut short"),
    bad("torch cut in half", 40, lambda: saved()[: len(saved()) // 2], "cut-short", "cut short"),
    bad("torch first four bytes", 40, b"PK\3\4", "cut-short", "cut short"),
    lost(
        *("torch bit of a storage", 41, lambda: flipped(saved(), K2.tobytes())),
        *("damaged", "do not match their checksum"),
        headers=False,
    ),
    bad("torch bit of the pickle", 41, lambda: flipped(saved(), b"q_proj"), "damaged", "data.pkl"),
    bad(
        "torch storage missing", 42, lambda: changed("data/0", None), "record-missing", "storage 0"
    ),
    bad("torch pickle missing", 42, lambda: changed("data.pkl", None), "other-kind", "data.pkl"),
    bad("torch storage too small", 48, storage_too_small, "record-missing", "storage 0"),
    bad("torch compressed", 46, lambda: zipped(unzipped(saved()), DEFLATED), "zip-compressed", ""),
    bad("torch bomb", 46, bomb, "zip-compressed", "data/0 is compressed"),
    fine("torch entry above the folder", 47, lambda: beside("../../escaped")),
    fine("torch entry at the root", 47, lambda: beside("/etc/passwd")),
    fine("torch 5000 entries", 47, lambda: beside(*map(str, range(5000)))),
    bad("torch entry twice", 47, entry_twice, "duplicate-key", "twice"),
    bad("torch encrypted", 47, marked_encrypted, "zip-encrypted", "is encrypted"),
    bad(
        "torch two pickles",
        47,
        zipped({"a/data.pkl": b"N.", "b/data.pkl": b"N."}),
        "other-kind",
        "",
    ),
    bad("zip without torch", 47, zipped({"a.txt": b"a"}), "other-kind", "not a torch file"),
    fine("legacy", 44, lambda: pt(weights(), is_zip=False)),
    bad("legacy cut", 44, lambda: pt(weights(), is_zip=False)[:-5], "cut-short", "5 of"),
    bad("legacy storage gone", 44, lambda: pt(weights(), is_zip=False)[:-200], "cut-short", "byte"),
]
CODE: list[Bad] = [
    bad("system in a zip", 43, with_program(SYSTEM), "unsafe-pickle", "system"),
    bad("system raw", 43, SYSTEM, "cut-short", "not a torch file"),
    bad("system in protocol 4", 43, SYSTEM_4, "cut-short", "not a torch file"),
    bad(
        "system legacy",
        43,
        lambda: pt(Runs(os.system, "mkdir ran"), is_zip=False),
        "unsafe-pickle",
        "posix.system",
    ),
    fine("eval beside weights", 43, lambda: pt(weights(a=Runs(eval, EVAL))), notes=1),
    bad("exec as the table", 43, lambda: pt(Runs(exec, EXEC)), "unsafe-pickle", "exec"),
    bad("getattr of a module", 43, with_program(GETATTR), "unsafe-pickle", "os.system"),
    bad("a name with a dot", 43, with_program(DOTTED), "unsafe-pickle", "torch.os.system"),
    bad("an extension", 43, with_program(b"\x82\x01."), "damaged", "EXT1"),
    lost(
        "code for a tensor",
        43,
        lambda: pt(weights() | {K: Runs(os.mkdir, "ran")}),
        "absent",
        "",
        notes=1,
    ),
    fine("a module", 45, module, notes=1),
    fine("a namespace beside", 45, lambda: pt({"model": weights(), "args": Namespace(lr=1.0)})),
    fine("an object beside", 45, lambda: pt({"model": weights(), "config": Config()}), notes=1),
    fine("a scalar of numpy beside", 45, lambda: pt({"model": weights(), "loss": np.float64(0.5)})),
    bad("two million marks", 56, with_program(b"(" * 2 * 10**6), "over-limit", "nested too deeply"),
    bad(
        "lists nested deeply, pickled",
        56,
        with_program(b"]" * 10**5 + b"a" * (10**5 - 1) + b"."),
        "damaged",
        "nested too deeply",
    ),
    bad("a memo beyond memory", 56, with_program(b"]r\xff\xff\xff\x7f00."), "damaged", "pickle"),
    bad(
        "bytes that are not there",
        56,
        with_program(b"\x8e" + struct.pack("<Q", 2**62) + b"."),
        "damaged",
        "pickle",
    ),
    bad(
        "a call to zeros",
        56,
        with_program(b"cbuiltins\nbytearray\n(L1000000000000L\ntR."),
        "damaged",
        "pickle",
    ),
    bad("an endless text", 56, with_program(b"V" + b"x" * 10**6), "damaged", "pickle"),
    bad("no pickle at all", 56, with_program(b""), "damaged", "pickle"),
    bad("a stack that is empty", 56, with_program(b"."), "damaged", "pickle"),
]
BAD_TORCH: list[Bad] = [*ARCHIVES, *CODE]
