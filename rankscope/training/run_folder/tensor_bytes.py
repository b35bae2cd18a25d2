"""Tensors as the bytes of a safetensors file: equal tensors give equal bytes.

The library's own writer orders the metadata of a file differently from one call to the next, so
its files differ in their digests even if their tensors are equal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_DTYPES = {np.dtype("float32"): "F32", np.dtype("float64"): "F64"}


def tensor_bytes(tensors: Mapping[str, Tensor], **metadata: str) -> bytes:
    """Return the content of a safetensors file.

    Parameters
    ----------
    tensors
        float32 or float64, on any device.
    metadata
        What the header says besides ``format: pt``.

    References
    ----------
    The format's description, https://github.com/huggingface/safetensors#format: the length of the
    header in eight bytes, the header as JSON padded with spaces, then the tensors without gaps.
    """
    arrays: dict[str, NDArray[np.floating]] = {
        name: np.ascontiguousarray(tensor.detach().cpu().numpy())
        for name, tensor in tensors.items()
    }
    # Wider types first: then every tensor begins at a multiple of its item size.
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    end = 0
    for name in names:
        start, end = end, end + arrays[name].nbytes
        header[name] = {
            "dtype": _DTYPES[arrays[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(arrays[n].data for n in names)])
