"""WRITE: a model and new values for some of its tensors -> the same file with those values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from fcpts_onnx.errors import OutputError
from fcpts_onnx.files import check_place
from fcpts_onnx.model import STAMP, Model, external_bytes, stored_tensors
from fcpts_onnx.sparse_initializers import store_sparse

__all__ = ["check_target", "save", "stale_data"]

_ALIGNMENT = 4096  # so that a runtime can map each tensor straight from the file
_DATA = (".data", "_data")  # what external data is called, by torch and by Hugging Face
_LARGEST = 2**31  # bytes of a model without its external data

_FIELDS: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float_data",
    onnx.TensorProto.DOUBLE: "double_data",
    onnx.TensorProto.FLOAT16: "int32_data",
    onnx.TensorProto.BFLOAT16: "int32_data",
    onnx.TensorProto.INT8: "int32_data",
    onnx.TensorProto.UINT8: "int32_data",
}


def check_target(
    target: Path,
    source: Path | None = None,
    *,
    reads: Iterable[Path] = (),
    overwrite: bool = False,
) -> None:
    """See before any work that a model can be written; only models are ever replaced.

    Args:
        source: the input, which is replaced only where `overwrite` is set.
        reads: other files that are read meanwhile, which are never replaced.

    Raises:
        OutputError: the folder is missing or not writable, the target is a folder, a device or a
            pipe, or it is one of those files, or another one that is no model.
    """
    check_place(target, source, reads, overwrite)
    if target.exists() and target.stat().st_size and not _is_model(target):
        raise OutputError(f"{target}: exists and is not an ONNX model. Name another file.")


def stale_data(target: Path, source: Model) -> list[Path]:
    """External data files that are there and belong to the model now at `target` alone.

    They lie beside it and go by its name. What `source` reads is not among them, unless it is the
    model that is replaced; nor is what another model in the folder names, as a copy of the small
    file does, `m.onnx.bak` too.
    """
    read = {file.resolve() for file in source.files}
    if target.resolve() in read:
        read.clear()
    try:
        own = (n for n in _data_of(target) if n.startswith(target.name) and n.endswith(".data"))
        files = [target.parent / name for name in own if Path(name).name == name]
        for other in _models_beside(target) if files else ():
            read.update((target.parent / name).resolve() for name in _named_by(other))
    except (OSError, DecodeError, ValueError):  # no model, or one that states no right places
        return []
    # A name that nothing has is free for the new file's own.
    return [file for file in files if file.exists() and file.resolve() not in read]


def save(
    model: Model,
    arrays: Mapping[str, np.ndarray[Any, Any]],
    stage: Path,
    folder: Path,
    *,
    stamp: str | None = None,
    sparse: Collection[str] = (),
) -> None:
    """Write the model with new values for the named constant tensors of its main graph.

    Every tensor keeps its type and the way it is stored; external data goes into one file beside
    the model, streamed. Zeros become +0.0; a value that is not zero stays so in the saved type.

    Args:
        arrays: new values by name, of the stored shapes.
        stage: the file to write.
        folder: where it will be moved to; external data takes a name that is free there.
        stamp: for the file's metadata, in place of an older one.
        sparse: tensors to store as sparse initializers, where these are smaller.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    # What an older stamp says is no longer so.
    kept = [entry for entry in model.proto.metadata_props if entry.key != STAMP]
    if stamp is not None:
        kept.append(onnx.StringStringEntryProto(key=STAMP, value=stamp))
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    data = stage.with_name(_free_name(folder, f"{stage.name}.data"))
    with _Appender(data) as sink:
        for name, tensor in stored_tensors(proto.graph):
            values = None
            if name is not None and name in arrays:
                values = _in_type(arrays[name], tensor)
            if uses_external_data(tensor):
                sink.append(
                    tensor,
                    external_bytes(tensor, model.folder) if values is None else values.tobytes(),
                )
            elif values is not None:
                _set_values(tensor, values)
    if sparse:
        store_sparse(proto.graph, sparse)
    with stage.open("wb") as file:
        file.write(proto.SerializeToString())


class _Appender:
    """The external data file of a model, made when the first tensor needs it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> _Appender:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, tensor: onnx.TensorProto, content: bytes) -> None:
        """Add a tensor's bytes and point the tensor to them."""
        if self._file is None:
            self._file = self._path.open("wb")
        self._file.seek(-(-self._file.tell() // _ALIGNMENT) * _ALIGNMENT)
        place = {"location": self._path.name, "offset": self._file.tell(), "length": len(content)}
        self._file.write(content)
        del tensor.external_data[:]
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))


def _in_type(values: np.ndarray[Any, Any], tensor: onnx.TensorProto) -> np.ndarray[Any, Any]:
    """Values in a tensor's type: zeros as +0.0, and nothing else rounded to zero."""
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    result = values.astype(dtype)
    if dtype.kind in "iu":
        return result.reshape(tuple(tensor.dims))
    lost = (result == 0) & (values != 0)
    smallest = np.nextafter(dtype.type(0), dtype.type(1))
    result[lost] = np.where(values[lost] > 0, smallest, -smallest)
    result[values == 0] = 0
    return result.reshape(tuple(tensor.dims))


def _set_values(tensor: onnx.TensorProto, values: np.ndarray[Any, Any]) -> None:
    """Replace a tensor's values in the field that holds them."""
    if tensor.HasField("raw_data"):
        tensor.raw_data = values.astype(values.dtype.newbyteorder("<")).tobytes()
        return
    field = _FIELDS[tensor.data_type]
    halves = field == "int32_data" and values.itemsize == 2
    plain = values.view(np.uint16) if halves else values
    tensor.ClearField(field)
    getattr(tensor, field).extend(plain.reshape(-1).tolist())


def _data_of(path: Path) -> set[str]:
    """The files that a model says its external data lies in."""
    proto = onnx.load_model(str(path), format="protobuf", load_external_data=False)
    return {
        ExternalDataInfo(tensor).location
        for _, tensor in stored_tensors(proto.graph)
        if uses_external_data(tensor)
    }


def _models_beside(target: Path) -> Iterator[Path]:
    """What else in the folder may be a model by its name and size, backups among them."""
    for other in target.parent.iterdir():
        name = other.name.lower()
        may_be = ".onnx" in name and not name.endswith(_DATA) and other.name != target.name
        if may_be and other.is_file() and other.stat().st_size < _LARGEST:
            yield other


def _named_by(other: Path) -> set[str]:
    """As `_data_of`; nothing where a file turns out to be no model and does not claim to be one."""
    try:
        return _data_of(other)
    except (OSError, DecodeError, ValueError):
        if other.suffix.lower() == ".onnx":
            raise
        return set()


def _is_model(path: Path) -> bool:
    try:
        proto = onnx.load_model(str(path), format="protobuf", load_external_data=False)
    except (OSError, DecodeError):
        return False
    return bool(proto.graph.node)


def _free_name(folder: Path, name: str) -> str:
    """The name, or one like it that no file in the folder has."""
    stem, candidate, number = name.removesuffix(".data"), name, 1
    while (folder / candidate).exists():
        number += 1
        candidate = f"{stem}.{number}.data"
    return candidate
