"""Names of torch in a pickle, and the tensors on disk that stand in for torch's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from rankscope.checkpoints.checksums import Checksum
from rankscope.checkpoints.files.distributed_tensors import NAMES as DISTRIBUTED_NAMES
from rankscope.checkpoints.files.distributed_tensors import distributed, is_distributed
from rankscope.checkpoints.files.inert_names import NAMES as PYTHON_NAMES
from rankscope.checkpoints.files.inert_names import Opaque, StandIn
from rankscope.checkpoints.limits import are_counts
from rankscope.checkpoints.tensors import DTYPES, MAX_AXES, StoredTensor, span
from rankscope.errors import RankscopeError

TORCH_DTYPES = {name: name for name in DTYPES if not name.startswith("float8")} | {
    "float8_e4m3fn": "float8_e4m3",
    "float8_e5m2": "float8_e5m2",
    "qint8": "int8",
    "quint8": "uint8",
    "qint32": "int32",
}
# Formats that numpy does not have.
NO_NUMPY = (
    *("complex32", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2"),
    *("quint4x2", "quint2x4", "bits8", "bits16", "bits1x8", "bits2x4", "bits4x2"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)),
)
_FORMATS = frozenset((*DTYPES, *NO_NUMPY))
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
    "UntypedStorage": "uint8",
}


class ClosedTensor(Opaque):
    """A tensor without plain elements in the file: of an odd format, sparse, or of a subclass.

    Attributes
    ----------
    dtype, shape
        As far as the file states them.
    reason
        Of its skip.
    """

    __slots__ = ("dtype", "reason", "shape")

    def __init__(self, name: str, *args: Any, reason: str = "unreadable") -> None:
        self.reason = reason
        super().__init__(name, *args)
        sizes = [one for one in args if isinstance(one, tuple) and one and _are_axes(one)]
        self.shape: tuple[int, ...] = sizes[0] if sizes else ()
        self.dtype = next((one for one in args if isinstance(one, str) and one in _FORMATS), "")


@dataclass(frozen=True)
class StorageKind:
    """A class of storages, by the type of their elements."""

    dtype: str


@dataclass(frozen=True)
class Storage:
    """A row of elements of one type, which tensors are views of.

    Attributes
    ----------
    offset
        Its first byte, counted from the start of the file.
    nbytes
        Number of its bytes.
    checksum
        Checksum of all of them, where the file has one.
    """

    path: str
    dtype: str
    offset: int
    nbytes: int
    checksum: Checksum | None = None

    def part(self, first: int, count: int) -> Storage:
        """``count`` of its elements from the first one on."""
        size = DTYPES[self.dtype][0]
        if first < 0 or count < 0 or (first + count) * size > self.nbytes:
            raise ValueError("takes more from a storage than it has")
        return Storage(self.path, self.dtype, self.offset + first * size, count * size)


def storage_identity(identity: Any) -> tuple[StorageKind, str, int]:
    """Type, key and number of elements in a pickle's reference to a storage."""
    match identity:
        case ("storage", StorageKind() as kind, str(key), _, int(count), *_) if 0 <= count < 2**60:
            return kind, key, count
    raise ValueError("refers to something that is not a storage")


def _tensor(storage: Any, start: Any, shape: Any, strides: Any, *rest: Any) -> Any:
    """What ``torch._utils._rebuild_tensor`` and ``_v2`` make."""
    if len(rest) > 2 and isinstance(rest[2], dict) and any(rest[2].values()):
        name = "torch.Tensor whose negation or conjugation is pending"
        return ClosedTensor(name, shape, getattr(storage, "dtype", ""))
    return _view(storage, start, shape, strides, dtype=getattr(storage, "dtype", None))


def _tensor_of_dtype(storage: Any, start: Any, shape: Any, strides: Any, *rest: Any) -> Any:
    """What ``_rebuild_tensor_v3`` makes, which states the format after gradient and hooks."""
    _, _, dtype, *_ = rest
    return _view(storage, start, shape, strides, dtype=dtype)


def _quantised(storage: Any, start: Any, shape: Any, strides: Any, *_: Any) -> Any:
    return _view(storage, start, shape, strides, dtype=getattr(storage, "dtype", None))


def _view(storage: Any, start: Any, shape: Any, strides: Any, *, dtype: Any) -> Any:
    """A tensor on disk; closed if numpy does not have its format."""
    if dtype not in DTYPES:
        sizes = tuple(shape) if _are_axes(shape) else ()
        return ClosedTensor(f"torch.Tensor of {dtype}", sizes, dtype)
    if not isinstance(storage, Storage) or not _are_axes([start]):
        raise ValueError("holds a tensor without a storage")
    if not _are_axes(shape) or not _are_axes(strides) or len(shape) != len(strides):
        raise ValueError("holds a tensor without sizes and strides")
    size = DTYPES[dtype][0]
    axes = tuple(zip(shape, strides, strict=True))
    count = 0 if 0 in shape else span(axes)
    if count and (start + count) * size > storage.nbytes:
        raise RankscopeError(
            f"holds a tensor of shape {list(shape)} that reaches beyond its storage of "
            f"{storage.nbytes} bytes",
            path=storage.path,
            reason="size-mismatch",
        )
    return StoredTensor(
        storage.path,
        "",
        dtype,
        tuple(shape),
        storage.offset + start * size,
        None if _is_row_major(axes) else tuple(strides),
        storage.checksum,
    )


def _are_axes(numbers: Any) -> bool:
    """Whether these are sizes or strides of an array that numpy can have."""
    return are_counts(numbers) and len(numbers) <= MAX_AXES


def _is_row_major(axes: tuple[tuple[int, int], ...]) -> bool:
    expected = 1
    for size, stride in reversed(axes):
        if size != 1 and stride != expected:
            return any(other == 0 for other, _ in axes)
        expected *= size
    return True


def _first(first: Any, *_: Any) -> Any:
    """The tensor inside a parameter, or inside what came from another device."""
    return first


def _typed(make: Any, kind: Any, args: Any, state: Any = None) -> Any:
    """What ``_rebuild_from_type_v2`` makes: a tensor with attributes, or of a subclass.

    Only the code of an unknown subclass knows what its elements mean.
    """
    if not callable(make) or not isinstance(args, tuple):
        raise ValueError("calls something that is not a class")
    # What those may copy is counted elsewhere. In a trusted pickle there are no stand-ins.
    if isinstance(make, StandIn) and (make.name in PYTHON_NAMES or make.make is _typed):
        raise ValueError("makes a tensor of something else")
    made = make(*args)
    name = str(getattr(kind, "known", None) or getattr(kind, "name", ""))
    if is_distributed(name):
        return distributed(name, state) or _closed(name, made)
    if isinstance(kind, StandIn) and kind.name not in NAMES and not isinstance(made, ClosedTensor):
        return _closed(kind.name, made)
    return made


def _closed(name: str, made: Any) -> ClosedTensor:
    return ClosedTensor(name, getattr(made, "shape", ()), getattr(made, "dtype", ""))


def _size(sizes: Any = ()) -> tuple[Any, ...]:
    if not _are_axes(sizes):
        raise ValueError("has a size that is not a list of non-negative integers")
    return tuple(sizes)


def _device(*parts: Any) -> str:
    """Name of a device, such as cuda:1."""
    return ":".join(str(part) for part in parts[:2] if isinstance(part, str | int))


def _text(text: Any, *_: Any) -> str:
    return text if isinstance(text, str) else ""


_KINDS: Mapping[str, Callable[..., Any]] = {
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_tensor_v3": _tensor_of_dtype,
    "_rebuild_qtensor": _quantised,
    "_rebuild_parameter": _first,
    "_rebuild_parameter_with_state": _first,
    "_rebuild_device_tensor_from_cpu_tensor": _first,
    **{
        name: partial(ClosedTensor, f"torch._utils.{name}")
        for name in (
            *("_rebuild_device_tensor_from_numpy", "_rebuild_xla_tensor"),
            *("_rebuild_sparse_tensor", "_rebuild_meta_tensor_no_storage"),
            *("_rebuild_nested_tensor", "_rebuild_wrapper_subclass"),
        )
    },
}
_WORDS = (
    *("per_tensor_affine", "per_channel_affine", "per_channel_affine_float_qparams"),
    *("per_tensor_symmetric", "per_channel_symmetric"),
    *("contiguous_format", "preserve_format", "channels_last", "channels_last_3d"),
    *("strided", "sparse_coo"),
)

NAMES: Mapping[str, Any] = {
    **PYTHON_NAMES,
    **DISTRIBUTED_NAMES,
    **{f"torch._utils.{name}": make for name, make in _KINDS.items()},
    **{f"torch.{name}": dtype for name, dtype in TORCH_DTYPES.items()},
    **{f"torch.{name}": name for name in (*NO_NUMPY, *_WORDS)},
    **{
        f"torch.{place}{name}": StorageKind(dtype)
        for place in ("", "cuda.", "storage.")
        for name, dtype in STORAGES.items()
    },
    "torch._tensor._rebuild_from_type": _typed,
    "torch._tensor._rebuild_from_type_v2": _typed,
    "torch.nn.parameter.Parameter": _first,
    "torch.nn.parameter.Buffer": _first,
    "torch.Tensor": _first,
    "torch.Size": _size,
    "torch.device": _device,
    "torch.serialization._get_layout": _text,
    "torch.torch_version.TorchVersion": _text,
}
