"""Bad files of ``torch.save``: families 39 to 57."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tests.reliability import bad as base
from tests.reliability.bad import (
    K,
    Q,
    honest,
    matrix,
    npz,
    pt,
    tensors,
    unzipped,
    zipped,
)

Q2, K2 = matrix(2, 0), matrix(2, 1)


def weights(**more: Any) -> dict[str, Any]:
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
    return pt(weights())


def changed(**entries: bytes | None) -> bytes:
    """The honest zip with some of its entries replaced, or without them."""
    held = unzipped(saved())
    for name, content in entries.items():
        (found,) = (one for one in held if one.partition("/")[2] == name.replace("__", "/"))
        if content is None:
            del held[found]
        else:
            held[found] = content
    return zipped(held)


def with_program(program: bytes, **entries: bytes) -> bytes:
    return zipped(
        {"a/data.pkl": program, "a/version": b"3\n"}
        | {f"a/data/{k}": v for k, v in entries.items()}
    )


def flipped(content: bytes, inside: bytes, bit: int = 0x40) -> bytes:
    place = content.index(inside) + 3
    return content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]


def renamed(name: str) -> bytes:
    """The honest zip with another entry beside the others."""
    return zipped(unzipped(saved()) | {name: b"x"})


def entry_twice() -> bytes:
    buffer = io.BytesIO()
    import warnings

    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in unzipped(saved()).items():
            archive.writestr(name, content)
            if name.endswith("data/0"):
                archive.writestr(name, content[::-1])
    return buffer.getvalue()


def marked_encrypted() -> bytes:
    """The flag of encryption in the zip's directory."""
    content = bytearray(saved())
    place = content.find(b"PK\1\2")
    while place != -1:
        content[place + 8] |= 1
        place = content.find(b"PK\1\2", place + 4)
    return bytes(content)


def many_entries() -> bytes:
    return zipped(unzipped(saved()) | {f"archive/x{i}": b"" for i in range(5000)})


def storage_too_small() -> bytes:
    return changed(data__0=Q2.tobytes()[:40])


def expanded(*shape: int) -> Callable[[], bytes]:
    def make() -> bytes:
        import torch

        return pt({Q: torch.from_numpy(Q2), K: torch.zeros(1).expand(*shape)})

    return make


def with_k(make: Callable[[Any, Any], Any]) -> Callable[[], bytes]:
    """A file with honest queries, and keys made of torch and the honest matrix."""

    def saved_with() -> bytes:
        import warnings

        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pt({Q: torch.from_numpy(Q2), K: make(torch, torch.from_numpy(K2))})

    return saved_with


def quantised(torch: Any, k: Any) -> Any:
    return torch.quantize_per_tensor(k, 0.1, 0, torch.qint8)


def module() -> bytes:
    import torch

    return pt(torch.nn.Linear(4, 6))


def of(content: Callable[[], Any]) -> Callable[[], bytes]:
    return lambda: pt(content())


def tied() -> bytes:
    return pt(
        weights(**{"lm_head.weight": weights()[Q], "model.embed_tokens.weight": weights()[Q]})
    )


bad, fine, tensor = (partial(make, place="torch") for make in (base.whole, base.fine, base.lost))
SYSTEM = b"cos\nsystem\n(S'mkdir ran'\ntR."
ARCHIVES = [
    bad("torch empty", 39, b"", "empty", "is empty"),
    bad("torch cut by one byte", 40, lambda: saved()[:-1], "cut-short"),
    bad("torch cut in half", 40, lambda: saved()[: len(saved()) // 2], "cut-short"),
    bad("torch first four bytes", 40, b"PK\3\4", "cut-short"),
    bad(
        "torch bit of a storage",
        41,
        lambda: flipped(saved(), Q2.tobytes()),
        "damaged",
        "",
        tensor=Q,
        cost="tensor",
    ),
    bad("torch bit of the pickle", 41, lambda: flipped(saved(), b"q_proj"), "damaged", "data.pkl"),
    bad("torch storage missing", 42, lambda: changed(data__0=None), "record-missing", "data/0"),
    bad("torch pickle missing", 42, lambda: changed(**{"data.pkl": None}), "cut-short", ""),
    bad("torch storage too small", 48, storage_too_small, "size-mismatch"),
    bad(
        "torch entries compressed",
        46,
        lambda: zipped(unzipped(saved()), compression=zipfile.ZIP_DEFLATED),
        "zip-compressed",
    ),
    bad(
        "torch bomb",
        46,
        lambda: zipped(
            {"a/data.pkl": unzipped(saved())["archive/data.pkl"], "a/data/0": bytes(10**8)},
            compression=zipfile.ZIP_DEFLATED,
        ),
        "zip-compressed",
    ),
    fine("torch entry above the folder", 47, lambda: renamed("../../escaped")),
    fine("torch entry at the root", 47, lambda: renamed("/etc/passwd")),
    bad("torch entry twice", 47, entry_twice, "duplicate-key", "twice"),
    bad("torch encrypted", 47, marked_encrypted, "zip-encrypted"),
    fine("torch 5000 entries", 47, many_entries),
    bad("torch two pickles", 47, lambda: zipped({"a/data.pkl": b"N.", "b/data.pkl": b"N."}), ""),
    bad("zip without torch", 47, lambda: zipped({"a.txt": b"a"}), ""),
]
CODE = [
    bad("system in a zip", 43, with_program(SYSTEM), "unsafe-pickle", "system"),
    bad("system raw", 43, SYSTEM, "", ""),
    bad(
        "system in protocol 4",
        43,
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\tmkdir ran\x85R.",
        "",
        "",
    ),
    bad(
        "system legacy",
        43,
        lambda: pt(Runs(os.system, "mkdir ran"), is_zip=False),
        "unsafe-pickle",
        "system",
    ),
    bad(
        "eval beside weights",
        43,
        lambda: pt(weights(a=Runs(eval, "__import__('os').mkdir('ran')"))),
        "",
        "eval",
    ),
    bad(
        "exec as the table",
        43,
        lambda: pt(Runs(exec, "import os; os.mkdir('ran')")),
        "unsafe-pickle",
        "exec",
    ),
    bad(
        "getattr of a module",
        43,
        with_program(b"cbuiltins\ngetattr\n(cos\nsystem\nS'x'\ntR."),
        "unsafe-pickle",
        "",
    ),
    bad(
        "a name with a dot",
        43,
        with_program(b"ctorch\nos.system\n(S'mkdir ran'\ntR."),
        "unsafe-pickle",
        "",
    ),
    bad("an extension", 43, with_program(b"\x82\x01."), "", ""),
    bad(
        "tensor of code",
        43,
        lambda: pt({Q: weights()[Q], K: Runs(os.mkdir, "ran")}),
        "unsafe-pickle",
        "",
        tensor=K,
    ),
    bad("a module", 45, module, "unsafe-pickle", "Linear"),
    fine("a namespace beside", 45, lambda: pt({"model": weights(), "args": Namespace(lr=1.0)})),
    fine("an object beside", 45, lambda: pt({"model": weights(), "config": Config()})),
    fine("a scalar of numpy beside", 45, lambda: pt({"model": weights(), "loss": np.float64(0.5)})),
    fine("legacy", 44, lambda: pt(weights(), is_zip=False)),
    bad("legacy cut", 44, lambda: pt(weights(), is_zip=False)[:-5], "cut-short"),
    bad("legacy storage gone", 44, lambda: pt(weights(), is_zip=False)[:-200], "cut-short"),
    bad("two million marks", 56, lambda: with_program(b"(" * 2 * 10**6), "", ""),
    bad(
        "lists nested deeply, pickled",
        56,
        with_program(b"]" * 2 * 10**5 + b"a" * (2 * 10**5 - 1) + b"."),
        "",
        "",
    ),
    bad(
        "sets that double",
        56,
        with_program(
            b"\x80\x04\x8f\x940("
            + b"K\x00\x94"
            + b"".join(b"(h%cK\x00\x86h%cK\x01\x86\x91\x94" % (0, 0) for i in range(1))
            + b"\x90."
        ),
        "",
        "",
    ),
    bad("a memo beyond memory", 56, with_program(b"]r\xff\xff\xff\x7f00."), "", ""),
    bad(
        "bytes that are not there",
        56,
        with_program(b"\x8e" + struct.pack("<Q", 2**62) + b"."),
        "",
        "",
    ),
    bad(
        "a call to zeros", 56, with_program(b"cbuiltins\nbytearray\n(L1000000000000L\ntR."), "", ""
    ),
    bad("an endless text", 56, with_program(b"V" + b"x" * 10**6), "", ""),
    bad("no pickle at all", 56, with_program(b""), "", ""),
    bad("a stack that is empty", 56, with_program(b"."), "", ""),
]
CONTENT = [
    tensor("12 orders of elements by stride 0", 49, expanded(10**6, 10**6), "too-large"),
    # tensor("2^28 elements by stride 0", 49, expanded(2**14, 2**14), "too-large"),
    tensor("2^60 axes by stride 0", 49, expanded(2**30, 2**30), "too-large"),
    fine(
        "small view by stride 0",
        49,
        with_k(lambda torch, k: k[:1].expand(6, 4)),
        {Q: Q2, K: np.repeat(K2[:1], 6, 0)},
    ),
    fine("transposed", 50, with_k(lambda torch, k: k.T.contiguous().T)),
    fine("every other", 50, with_k(lambda torch, k: torch.stack([k, k], 2).reshape(6, 8)[:, ::2])),
    tensor(
        "meta", 51, with_k(lambda torch, k: torch.empty(6, 4, device="meta")), "unreadable", "meta"
    ),
    tensor("sparse COO", 52, with_k(lambda torch, k: k.to_sparse()), "unreadable", ""),
    tensor("sparse CSR", 52, with_k(lambda torch, k: k.to_sparse_csr()), "unreadable", ""),
    tensor("quantised", 52, with_k(quantised), "quantised", ""),
    tensor(
        "nested",
        52,
        with_k(lambda torch, k: torch.nested.nested_tensor([k, k[:2]])),
        "unreadable",
        "",
    ),
    tensor("int8", 65, with_k(lambda torch, k: k.to(torch.int8)), "quantised", "int8"),
    tensor("uint8", 65, with_k(lambda torch, k: k.to(torch.uint8)), "quantised", ""),
    tensor("bool", 65, with_k(lambda torch, k: k > 0), "quantised", ""),
    tensor("int64", 65, with_k(lambda torch, k: k.long()), "quantised", ""),
    tensor("float8 e4m3", 66, with_k(lambda torch, k: k.to(torch.float8_e4m3fn)), "quantised", ""),
    tensor("float8 e5m2", 66, with_k(lambda torch, k: k.to(torch.float8_e5m2)), "quantised", ""),
    tensor(
        "float8 e8m0",
        66,
        with_k(lambda torch, k: k.abs().to(torch.float8_e8m0fnu)),
        "unreadable",
        "",
    ),
    tensor("complex64", 67, with_k(lambda torch, k: k.to(torch.complex64)), "quantised", ""),
    tensor("complex128", 67, with_k(lambda torch, k: k.to(torch.complex128)), "quantised", ""),
    tensor("complex half", 67, with_k(lambda torch, k: k.to(torch.complex32)), "unreadable", ""),
    tensor("conjugate", 67, with_k(lambda torch, k: k.to(torch.complex64).conj()), "", ""),
    bad("a list", 53, of(lambda: [weights()[Q], weights()[K]]), "", ""),
    bad("a bare tensor", 53, of(lambda: weights()[Q]), "", ""),
    bad("an empty dict", 53, of(dict), "", ""),
    bad("a number", 53, of(lambda: 5), "", ""),
    bad("nothing", 53, of(lambda: None), "", ""),
    bad("text", 53, of(lambda: "weights"), "", ""),
    bad("keys that are numbers", 53, of(lambda: dict(enumerate(weights().values()))), "", ""),
    bad("keys that are tuples", 53, of(lambda: {(n, 1): t for n, t in weights().items()}), "", ""),
    fine("an ordered dict", 54, of(lambda: OrderedDict(weights()))),
    fine(
        "under model, beside an optimizer",
        54,
        of(lambda: {"model": weights(), "step": 2, "opt": {"state": {}, "param_groups": []}}),
    ),
    fine("under state_dict", 54, of(lambda: {"state_dict": weights(), "epoch": 1})),
    fine("tied", 55, tied),
    fine("safetensors content", 57, tensors(honest())),
    fine("torch content", 57, saved, place="weights"),
    bad("numpy content", 57, npz(honest()), ""),
    bad("plain pickle", 57, pickle.dumps(honest()), ""),
    bad("name of a lone surrogate", 9, of(lambda: weights(**{"a\ud800b": weights()[K]})), "", ""),
]
BAD_TORCH = [*ARCHIVES, *CODE, *CONTENT]
