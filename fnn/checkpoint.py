"""Checkpoints: a tree in one `.npz` file, written whole or not at all, and read back bit for bit.

The file is a plain zip archive. Every array is the member `<path>.npy`, uncompressed (`numpy.load` reads it too); one
member, `fnn.json`, holds format and version, the paths of the arrays, numbers and keys by path, and the metadata. What
kind of node stands where is not in the file: `load` takes it from a tree of the same form.
"""

from __future__ import annotations

import errno
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import attrs
import numpy as np

from fnn.random import Key
from fnn.tree import Tree, join
from fnn.types import NDArray

if TYPE_CHECKING:
    from typing import BinaryIO
    from zipfile import ZipFile

T = TypeVar("T")
Path: TypeAlias = str | os.PathLike[str]
Leaf: TypeAlias = NDArray[Any] | int | float | Key

FORMAT, VERSION = "fnn checkpoint", 1
INDEX = "fnn.json"
SHOWN = 8


class CheckpointError(ValueError):
    """A file that is not a checkpoint, is damaged, or does not fit what it is loaded into."""


def save(path: Path, tree: Tree, *, metadata: Mapping[str, Any] | None = None) -> None:
    """Writes `tree` (mappings, tuples, attrs records; arrays, Python numbers, keys) and JSON `metadata` to one file.

    The file appears at `path`, as given, at once and on the disk: until then what stood there before is untouched. At
    worst, a process killed in the instant before leaves `<path>.tmp`, which the next save removes. Only one process at
    a time should save to a path. Trees and metadata that are equal, in the same order, give equal files.

    Raises `TypeError` for what cannot be saved (object arrays, functions, strings; metadata other than None, booleans,
    numbers, strings, lists and mappings of those), `ValueError` for names that cannot be paths, `OSError` for a place
    that cannot be written to.
    """
    _check_path("save", path)
    leaves = _leaves(tree)
    arrays = {where: leaf for where, leaf in leaves.items() if isinstance(leaf, np.ndarray)}
    index = {
        "format": FORMAT,
        "version": VERSION,
        "arrays": list(arrays),
        "values": {where: leaf for where, leaf in leaves.items() if where not in arrays},
        "metadata": {} if metadata is None else metadata,
    }
    encoded = {name: _encode(part, name) for name, part in index.items()}
    _replace(path, lambda file: _write(file, encoded, arrays))


def check_saving(path: Path, tree: Tree) -> None:
    """Raises what `save` would for this tree and this path, and leaves no trace: to be told before hours of work."""
    _leaves(tree)
    _replace(path, _write_nothing, _put_nowhere)


def load(path: Path, like: T) -> T:
    """The tree saved at `path`, in the form of `like`: its records, mappings, tuples, empty nodes and kinds of leaf.

    Arrays are read-only and have the bits, dtypes and order (C or Fortran) that were saved. Raises `CheckpointError`
    with a list of differences, parameters first, unless paths, kinds, shapes and dtypes are those of `like`.

        params = load("params.npz", like=net.init(Key(0), in_shape))  # what save("params.npz", params) has written

    What `train` writes is `{"train_state": TrainState, "best": {"params": ..., "state": ...}}`: `train(resume=path)`
    goes on from it, and `load_arrays` has its arrays one by one.
    """
    _check_path("load", path)
    wanted = _leaves(like)
    with _opened(path) as (archive, index):
        found = {**_arrays(path, archive, index), **index["values"]}
    if differences := [*_differences(found, wanted)]:
        differences.sort(key=lambda line: "params" not in line.partition(":")[0].split("/")[:2])  # stable
        more = f"\n  and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise CheckpointError(
            f"{os.fspath(path)} does not fit:"
            + "".join(f"\n  {line}" for line in differences[:SHOWN])
            + f"{more}\nBuild what was saved (the same network and optimizer), or pick what fits from load_arrays."
        )
    loaded: T = _restore(like, found, "")
    return loaded


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of a checkpoint by its path, to look at or to load in part (Python numbers and keys are left out).

    In a checkpoint of `train` the final parameters are `train_state/params/...`, the best ones `best/params/...` with
    their running statistics `best/state/...`; what `save(path, params)` wrote has no prefix. All of them, and none that
    is not there:

        saved = load_arrays("run.npz")
        params = fnn.tree.map_with_path(lambda at, leaf: saved["best/params/" + at], params)
    """
    with _opened(path) as (archive, index):
        return _arrays(path, archive, index)


def load_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a checkpoint; reads nothing else."""
    with _opened(path) as (_, index):
        metadata: dict[str, Any] = index["metadata"]
        return metadata


def _check_path(who: str, path: Path) -> None:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{who}: expected the path of a file first, then the tree, got {type(path).__name__}")


# --- trees as tables of leaves ---------------------------------------------------------------------------------------


def _children(tree: Tree, where: str) -> list[tuple[str, Tree]] | None:
    """The named children of a node; None for a leaf. As in `fnn.tree`, and the fields of attrs records."""
    if isinstance(tree, Mapping):
        named = [(str(key), child) for key, child in tree.items()]
    elif isinstance(tree, tuple):
        named = [(str(name), child) for name, child in zip(getattr(tree, "_fields", None) or range(len(tree)), tree)]
    elif _is_record(tree):
        named = [(field.name, getattr(tree, field.name)) for field in _fields(tree)]
    else:
        return [] if tree is None else None
    for name, _ in named:
        if not name or not name.isprintable() or "/" in name or "\\" in name:
            raise ValueError(
                f"checkpoint: the name {name!r} in {_at(where)} cannot be part of a path; "
                "expected printable characters other than '/' and '\\'"
            )
    if len({name for name, _ in named}) < len(named):
        raise ValueError(f"checkpoint: two keys in {_at(where)} have the same name: {[name for name, _ in named]}")
    return named


def _is_record(tree: Tree) -> bool:
    return attrs.has(type(tree)) and not isinstance(tree, Key)


def _fields(record: Tree) -> list[attrs.Attribute[Any]]:
    """The fields that make a record; the others follow from them."""
    return [field for field in attrs.fields(type(record)) if field.init]


def _leaves(tree: Tree, where: str = "") -> dict[str, Leaf]:
    """The leaves by path, whatever is like an array as one."""
    children = _children(tree, where)
    if children is None:
        return {where: _leaf(tree, where)}
    return {at: leaf for name, child in children for at, leaf in _leaves(child, join(where, name)).items()}


def _leaf(leaf: Any, where: str) -> Leaf:
    """The leaf if it can be saved; subclasses of arrays cannot, since a masked one would lose its mask."""
    if isinstance(leaf, Key) or isinstance(leaf, (int, float)) and type(leaf) in (bool, int, float):
        return leaf
    plain = type(leaf) in (np.ndarray, np.memmap) or not isinstance(leaf, np.ndarray)
    if not plain or not hasattr(leaf, "__array__"):
        raise TypeError(
            f"checkpoint: cannot hold {_at(where)}, of type {type(leaf).__name__}; "
            "expected an array, a bool, int or float, or a Key"
        )
    try:
        array = np.asarray(leaf)
    except Exception as error:
        raise TypeError(f"checkpoint: cannot hold {_at(where)}, of type {type(leaf).__name__}: {error}") from error
    if array.dtype.hasobject or np.dtype(array.dtype.str) != array.dtype:
        raise TypeError(
            f"checkpoint: cannot hold {_at(where)}, an array of dtype {array.dtype}; "
            "convert it to a plain dtype such as float32"
        )
    return array


def _restore(like: Tree, found: Mapping[str, Leaf], where: str) -> Tree:
    """The tree of the form of `like` with the leaves that were found."""
    children = _children(like, where)
    if children is None:
        leaf = found[where]
        return leaf[()] if isinstance(like, np.generic) and isinstance(leaf, np.ndarray) else leaf
    parts = [_restore(child, found, join(where, name)) for name, child in children]
    if isinstance(like, Mapping):
        return dict(zip(like, parts))
    if isinstance(like, tuple):
        return type(like)(*parts) if hasattr(like, "_fields") else tuple(parts)
    return None if like is None else attrs.evolve(like, **dict(zip([str(f.alias) for f in _fields(like)], parts)))


def _differences(found: Mapping[str, Leaf], wanted: Mapping[str, Leaf]) -> Iterator[str]:
    for where, leaf in wanted.items():
        if where not in found:
            yield f"{_at(where)}: missing in the file, expected {_describe(leaf)}"
        elif (there := _describe(found[where])) != (here := _describe(leaf)):
            yield f"{_at(where)}: {there} in the file, expected {here}"
    for where, leaf in found.items():
        if where not in wanted:
            yield f"{_at(where)}: {_describe(leaf)} in the file, not expected"


def _describe(leaf: Leaf) -> str:
    return f"{leaf.dtype} {leaf.shape}" if isinstance(leaf, np.ndarray) else f"Python {type(leaf).__name__}"


def _at(where: str) -> str:
    return where or "the root"


# --- JSON ------------------------------------------------------------------------------------------------------------


def _encode(value: Any, where: str) -> Any:
    """The value as plain JSON: floats that are not finite become `{"$float": bits}`, keys `{"$key": [...]}`.

    Names that begin with `$` get another one, so that nothing else looks like these.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": struct.pack(">d", value).hex()}  # the bits, since there are many NaNs
    if isinstance(value, Key):
        return {"$key": _encode([value.entropy, *value.path], where)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [_encode(part, join(where, str(position))) for position, part in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {
            f"${name}" if name.startswith("$") else str(name): _encode(part, join(where, name))
            for name, part in value.items()
        }
    what = "has keys that are not strings" if isinstance(value, Mapping) else f"is of type {type(value).__name__}"
    raise TypeError(
        f"checkpoint: {where} {what}; JSON holds None, booleans, numbers, strings, lists and mappings with string keys"
    )


def _decode(value: Any) -> Any:
    """The inverse of `_encode`."""
    if isinstance(value, list):
        return [_decode(part) for part in value]
    if not isinstance(value, dict):
        return value
    if "$float" in value:
        return struct.unpack(">d", bytes.fromhex(value["$float"]))[0]
    if "$key" in value:
        entropy, *path = value["$key"]
        return Key(entropy, tuple(path))
    return {name.removeprefix("$"): _decode(part) for name, part in value.items()}


# --- writing ---------------------------------------------------------------------------------------------------------


def _write(file: BinaryIO, index: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    import json
    from zipfile import ZipFile, ZipInfo

    text = json.dumps(index, allow_nan=False)
    try:
        with ZipFile(file, "w") as archive:
            archive.writestr(ZipInfo(INDEX), text)  # a ZipInfo of its own, without the time: equal trees, equal files
            for where, array in arrays.items():
                with archive.open(ZipInfo(f"{where}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
    except ValueError as error:  # closing the archive within a member, since an interrupt has come
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise


def _put_in_place(temporary: str, target: str) -> None:
    os.replace(temporary, target)


def _put_nowhere(temporary: str, target: str) -> None:
    os.unlink(temporary)


def _replace(path: Path, write: Callable[[BinaryIO], None], put: Callable[[str, str], None] = _put_in_place) -> None:
    """Puts what `write` writes in the place of the file at `path` (of what it links to), on the disk and at once."""
    target = os.path.realpath(path)
    if os.path.exists(target) and not os.path.isfile(target):
        reason = errno.EISDIR if os.path.isdir(target) else errno.EINVAL
        raise OSError(reason, "save: expected the path of a file", os.fspath(path))
    temporary = f"{target}.tmp"
    directory = os.path.dirname(target)
    try:
        if not _write_unnamed(directory, temporary, write):
            _write_named(directory, temporary, write)
        put(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    with suppress(OSError):  # some systems cannot open or synchronise a directory
        parent = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


def _write_nothing(file: BinaryIO) -> None:
    """A trial writes no bytes."""


def _write_unnamed(directory: str, temporary: str, write: Callable[[BinaryIO], None]) -> bool:
    """Writes a file without a name (Linux: it vanishes with the process), then names it; False where that cannot be."""
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None:
        return False
    try:
        descriptor = os.open(directory, flag | os.O_WRONLY, 0o666)
    except OSError:  # a file system that has no such files; or a reason that the other way will report
        return False
    with open(descriptor, "wb") as file:
        write(file)
        _flush(file)
        while True:
            try:  # src_dir_fd means nothing to an absolute path, but without it os.link does not follow links
                os.link(f"/proc/self/fd/{descriptor}", temporary, src_dir_fd=descriptor)
                return True
            except FileExistsError:
                _remove(temporary)
            except OSError:  # no /proc; or a reason that the other way will report
                return False


def _write_named(directory: str, temporary: str, write: Callable[[BinaryIO], None]) -> None:
    """Writes a new file under the temporary name."""
    try:
        _remove(temporary)
        file = open(temporary, "xb")
    except OSError as error:
        raise OSError(error.errno, f"save: cannot write in this directory ({error.strerror})", directory) from None
    with file:
        write(file)
        _flush(file)
        if not os.path.samestat(os.fstat(file.fileno()), os.stat(temporary)):
            raise OSError(errno.EBUSY, "save: another process is saving to the same path", temporary)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _remove(temporary: str) -> None:
    """Removes what a process left that was killed."""
    with suppress(FileNotFoundError):
        os.unlink(temporary)


# --- reading ---------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[tuple[ZipFile, dict[str, Any]]]:
    """The archive and its decoded index; whatever goes wrong with them in the block is a `CheckpointError`."""
    from zipfile import ZipFile

    name = os.fspath(path)
    with open(path, "rb") as file:
        start = file.read(4)
        if start != b"PK\3\4":
            what = "is not a checkpoint (not a zip archive)" if start else "is empty"
            raise CheckpointError(f"{name} {what}; expected a file written by fnn.save")
        try:
            with ZipFile(file) as archive:
                yield archive, _index(name, archive)
        except (CheckpointError, MemoryError):
            raise
        except Exception as error:  # zipfile has a dozen for bytes that are not as they should be
            raise CheckpointError(
                f"{name} is damaged, cut off or altered ({error}); use another copy of it, or an earlier checkpoint"
            ) from error


def _index(name: str, archive: ZipFile) -> dict[str, Any]:
    import json

    members = archive.namelist()
    if INDEX not in members:
        raise CheckpointError(
            f"{name} is not a checkpoint: it has no member {INDEX}; numpy.load reads the .npz files of other programs"
        )
    index = json.loads(_member(archive, INDEX))
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise CheckpointError(f"{name} is not a checkpoint: its member {INDEX} is of another program")
    if index["version"] > VERSION:
        raise CheckpointError(
            f"{name} has format version {index['version']}, this fnn reads up to {VERSION}: install a newer fnn"
        )
    if sorted(members) != sorted([INDEX, *(f"{where}.npy" for where in index["arrays"])]):
        raise ValueError(f"its members are not those that {INDEX} lists")
    return {part: _decode(index[part]) for part in ("arrays", "values", "metadata")}


def _arrays(path: Path, archive: ZipFile, index: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    return {where: _array(path, where, _member(archive, f"{where}.npy")) for where in index["arrays"]}


def _member(archive: ZipFile, name: str) -> bytes:
    """The bytes of a member; `zipfile` compares their checksum."""
    info = archive.getinfo(name)
    if info.compress_type or info.file_size != info.compress_size:  # nor can a small file ask for much memory
        raise ValueError(f"{name} is compressed")
    return archive.read(info)


def _array(path: Path, where: str, data: bytes) -> NDArray[Any]:
    """The array of an `.npy` file, read-only since it lies in these bytes themselves."""
    from io import BytesIO

    stream = BytesIO(data)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[np.lib.format.read_magic(stream)]
    shape, fortran_order, dtype = read_header(stream)
    if dtype.hasobject:
        raise CheckpointError(
            f"{os.fspath(path)}: {_at(where)} holds pickled objects, which could run any program and are not loaded"
        )
    array: NDArray[Any] = np.ndarray(shape, dtype, data, stream.tell(), order="F" if fortran_order else "C")
    if stream.tell() + array.nbytes != len(data):
        raise ValueError(f"{where}.npy has {len(data)} bytes")
    return array
