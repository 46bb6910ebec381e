"""Checkpoints: exact round trips, refusals, damage, and writing that survives errors and kills."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fnn import checkpoint
from fnn.checkpoint import CheckpointError, load, load_arrays, load_metadata, save
from fnn.random import Key


class Moments(NamedTuple):
    count: Any
    mean: Any


@attrs.frozen
class Run:
    """In the form of a training state."""

    step: int
    params: Any
    state: Any = attrs.field(factory=dict)
    opt_state: Any = ()
    key: Key = Key(0)
    _private: Any = None
    total: Any = attrs.field(init=False, default=7)


def run(seed: int = 0, width: int = 4) -> Run:
    rng = np.random.default_rng(seed)
    params = {
        "dense_0": {"weight": rng.normal(size=(3, width)).astype(np.float32), "bias": np.zeros(width, np.float32)},
        "dense_1": {"weight": rng.normal(size=(width, 2))},
    }
    moments = Moments(seed, {"dense_0": {"weight": np.ones((3, width), np.float16)}})
    return Run(seed, params, {"norm": {"mean": np.arange(5)}}, ({"adam": moments}, (), None), Key(seed, ("run", seed)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.npz"


def identical(a: Any, b: Any) -> bool:
    """Whether two trees are the same to the last bit: types, names, dtypes, order, signs of zeros, kinds of NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        order = not (a.flags.forc and b.flags.forc) or a.flags.c_contiguous == b.flags.c_contiguous
        return bool(a.dtype == b.dtype and a.shape == b.shape and order and a.tobytes() == b.tobytes())
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(identical(a[k], b[k]) for k in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(identical(x, y) for x, y in zip(a, b))
    if attrs.has(type(a)):
        return all(identical(getattr(a, f.name), getattr(b, f.name)) for f in attrs.fields(type(a)))
    return bool(a == b)


def blank(tree: Any) -> Any:
    """A tree of the same form that holds nothing of the original's numbers."""
    if isinstance(tree, np.ndarray):
        return np.zeros_like(tree)
    if isinstance(tree, Key):
        return Key(12345)
    if isinstance(tree, (bool, int, float, np.generic)):
        return type(tree)()
    if isinstance(tree, dict):
        return {k: blank(v) for k, v in tree.items()}
    if isinstance(tree, tuple):
        parts = [blank(v) for v in tree]
        return type(tree)(*parts) if isinstance(tree, Moments) else tuple(parts)
    if isinstance(tree, Run):
        return Run(0, *(blank(part) for part in (tree.params, tree.state, tree.opt_state, tree.key, tree._private)))
    assert tree is None
    return None


def all_arrays(tree: Any) -> Iterator[np.ndarray[Any, Any]]:
    if isinstance(tree, np.ndarray):
        yield tree
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from all_arrays(part)
    elif isinstance(tree, tuple):
        for part in tree:
            yield from all_arrays(part)
    elif isinstance(tree, Run):
        yield from all_arrays((tree.params, tree.state, tree.opt_state, tree._private))


# --- round trips -----------------------------------------------------------------------------------------------------

DTYPES = "? i1 <i2 >i4 i8 u1 u2 u4 u8 f2 <f4 >f4 <f8 >f8 g c8 c16 <U3 S2 <M8[ms] m8[D] V5".split()


@st.composite
def some_arrays(draw: st.DrawFn) -> Any:
    """Random bits of every dtype, C order, Fortran order or neither; 0-d and empty ones too."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    size = math.prod(shape)
    if dtype.kind in "bUg" or dtype == np.longdouble:  # not every pattern of bits is one of theirs
        array = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 2, size).astype(dtype)
    else:
        array = np.frombuffer(np.random.default_rng(draw(st.integers(0, 99))).bytes(size * dtype.itemsize), dtype)
    layout = draw(st.sampled_from(["C", "F", "strided", "scalar"]))
    if layout == "strided":
        return np.repeat(array.reshape(*shape, 1), 2, -1)[..., 0]
    if layout == "scalar" and size:
        return array[0]
    return np.asarray(array.reshape(shape), order="F" if layout == "F" else "C")


NAMES = st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters="/\\"), min_size=1, max_size=6)
LEAVES = st.one_of(
    some_arrays(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    st.sampled_from([math.nan, -math.nan, math.inf, -math.inf, -0.0, 5e-324]),
    st.builds(Key, st.integers(0, 2**128 - 1), st.lists(st.integers() | st.text(), max_size=3).map(tuple)),
)
TREES = st.recursive(
    st.none() | LEAVES,
    lambda parts: st.one_of(
        st.dictionaries(NAMES | st.integers(-3, 3).map(lambda n: n + 0), parts, max_size=4).filter(
            lambda d: len({str(k) for k in d}) == len(d)
        ),
        st.lists(parts, max_size=3).map(tuple),
        st.builds(Moments, parts, parts),
        st.builds(Run, st.integers(), parts, parts, parts),
    ),
    max_leaves=12,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text() | st.just("$float"), parts, max_size=3),
    max_leaves=8,
)
PROPERTY = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@PROPERTY
@given(tree=TREES)
def test_a_tree_comes_back_bit_for_bit(file: Path, tree: Any) -> None:
    save(file, tree)
    loaded = load(file, blank(tree))
    assert identical(loaded, tree)
    assert not any(a.flags.writeable for a in all_arrays(loaded))


@PROPERTY
@given(metadata=st.dictionaries(st.text(), JSON, max_size=4))
def test_metadata_come_back_exactly(file: Path, metadata: dict[str, Any]) -> None:
    save(file, {}, metadata=metadata)
    assert identical(load_metadata(file), metadata)


def test_identical_tells_apart_what_equality_does_not() -> None:
    a = np.ones((2, 3))
    pairs = [(0.0, -0.0), (1, True), (1, 1.0), ((1, 1), Moments(1, 1)), (a, np.asfortranarray(a)), (a, a.astype(">f8"))]
    for x, y in pairs:
        assert not identical(x, y) and not identical({"a": x}, {"a": y}) and identical(x, x)


def test_a_single_leaf_is_a_tree(file: Path) -> None:
    save(file, np.arange(3))
    assert identical(load(file, np.zeros(3, int)), np.arange(3))


def test_metadata_are_empty_unless_given(file: Path) -> None:
    save(file, run())
    assert load_metadata(file) == {}


def test_arrays_are_read_only_for_good(file: Path) -> None:
    save(file, np.arange(3))
    with pytest.raises(ValueError, match="WRITEABLE"):
        load(file, np.arange(3)).setflags(write=True)


def test_whatever_is_like_an_array_comes_back_as_one(file: Path) -> None:
    class Foreign:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
            return np.arange(3.0)

    save(file, {"a": Foreign()})
    assert identical(load(file, {"a": Foreign()}), {"a": np.arange(3.0)})


def test_load_arrays_is_flat_and_without_numbers(file: Path) -> None:
    tree = run(3)
    save(file, tree)
    arrays = load_arrays(file)
    assert list(arrays) == [
        "params/dense_0/weight",
        "params/dense_0/bias",
        "params/dense_1/weight",
        "state/norm/mean",
        "opt_state/0/adam/mean/dense_0/weight",
    ]
    assert identical(arrays["params/dense_1/weight"], tree.params["dense_1"]["weight"])


def test_numpy_reads_the_arrays_without_fnn(file: Path) -> None:
    tree = run(3)
    save(file, tree)
    with np.load(file, allow_pickle=False) as archive:
        assert identical(archive["params/dense_1/weight"], tree.params["dense_1"]["weight"])


def test_the_same_tree_gives_the_same_file_at_any_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(file, run(), metadata={"a": 1})
    first = file.read_bytes()
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(10**9))
    save(file, run(), metadata={"a": 1})
    assert file.read_bytes() == first


def test_another_process_reads_the_same(file: Path) -> None:
    tree = run(5)
    save(file, tree, metadata={"loss": math.nan, "epochs": 3})
    code = (
        "import pickle, sys; from fnn.checkpoint import load_arrays, load_metadata; "
        "sys.stdout.buffer.write(pickle.dumps((load_arrays(sys.argv[1]), load_metadata(sys.argv[1]))))"
    )
    out = subprocess.run([sys.executable, "-c", code, file], capture_output=True, check=True).stdout
    assert identical(pickle.loads(out), (load_arrays(file), {"loss": math.nan, "epochs": 3}))


def test_large_arrays_are_not_copied(file: Path) -> None:
    array = np.ones((8, 2**20))  # 64 MiB
    peaks = []
    for action in (lambda: save(file, {"a": array.T, "b": 1}), lambda: load_arrays(file)):
        tracemalloc.start()
        action()
        peaks.append(tracemalloc.get_traced_memory()[1] / array.nbytes)
        tracemalloc.stop()
    assert peaks[0] < 0.6 and peaks[1] < 1.1


def test_the_path_is_taken_as_given(tmp_path: Path) -> None:
    save(str(tmp_path / "without_suffix"), run())
    assert os.listdir(tmp_path) == ["without_suffix"]


def test_importing_it_imports_nothing_slow() -> None:
    code = (
        "import attrs, numpy, sys; before = {*sys.modules}; import fnn.checkpoint; "
        "print({'zipfile', 'json', 'tempfile', 'pathlib', 'numpy.random'} & ({*sys.modules} - before))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "set()\n"


# --- what cannot be saved --------------------------------------------------------------------------------------------


class Unreadable:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("on another device")


@pytest.mark.parametrize(
    ("tree", "error", "words"),
    [
        ({"a": {"b/c": np.ones(1)}}, ValueError, "'b/c' in a "),
        ({"a\\b": 1}, ValueError, "in the root"),
        ({"": 1}, ValueError, "''"),
        ({"a\0": 1}, ValueError, "printable"),
        ({"\ud800": 1}, ValueError, "printable"),
        ({"a": {1: 1, "1": 2}}, ValueError, "two keys in a have the same name"),
        ({"a": (np.array([None]),)}, TypeError, "a/0, an array of dtype object"),
        ({"a": np.zeros(2, [("x", "f4")])}, TypeError, "plain dtype"),
        ({"a": np.array(["x"], np.dtypes.StringDType())}, TypeError, "plain dtype"),
        ({"a": np.ma.masked_array([1.0], [True])}, TypeError, "MaskedArray"),
        ({"a": "text"}, TypeError, "cannot hold a, of type str"),
        ({"a": [1, 2]}, TypeError, "of type list"),
        ({"a": 1j}, TypeError, "of type complex"),
        (Run(0, len), TypeError, "params, of type builtin"),
        ({"a": Unreadable()}, TypeError, "cannot hold a, of type Unreadable: on another device"),
        (signal.SIGINT, TypeError, "the root, of type Signals"),
        (Key(0, (np.int64(3),)), TypeError, "int64"),  # type: ignore[arg-type]
    ],
)
def test_refuses_what_it_could_not_read_back(file: Path, tree: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        save(file, tree)
    assert not os.listdir(file.parent)


@pytest.mark.parametrize(
    "value", [(1, 2), {1: 2}, {3}, b"x", np.float32(1), np.ones(2), 1j, {"deep": [{"er": object()}]}]
)
def test_refuses_metadata_that_json_would_change(file: Path, value: Any) -> None:
    with pytest.raises(TypeError, match="metadata/a.*JSON holds"):
        save(file, run(), metadata={"a": value})
    assert not os.listdir(file.parent)


# --- what does not fit -----------------------------------------------------------------------------------------------


def test_lists_every_difference_parameters_first(file: Path) -> None:
    save(file, {"key": 1, "count": 2, "rate": 0.5, "params": {"a": np.ones(3), "b": np.ones(3, "f4"), "c": np.ones(1)}})
    like = {"key": Key(0), "count": 2.0, "params": {"a": np.ones((3, 1)), "b": np.ones(3, ">f4"), "d": 1}, "n": None}
    with pytest.raises(CheckpointError) as caught:
        load(file, like)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{file} does not fit:" and "load_arrays" in lines[-1]
    assert lines[1:-1] == [
        "  params/a: float64 (3,) in the file, expected float64 (3, 1)",
        "  params/b: float32 (3,) in the file, expected >f4 (3,)",
        "  params/d: missing in the file, expected Python int",
        "  params/c: float64 (1,) in the file, not expected",
        "  key: Python int in the file, expected Python Key",
        "  count: Python int in the file, expected Python float",
        "  rate: Python float in the file, not expected",
    ]


def test_a_long_list_of_differences_is_cut(file: Path) -> None:
    save(file, {"params": {f"dense_{i}": np.ones(3) for i in range(30)}})
    with pytest.raises(CheckpointError, match=r"\n  and 23 more\n") as caught:
        load(file, {"params": {"other": np.ones(2)}})
    assert len(str(caught.value).splitlines()) == 11


@pytest.mark.parametrize(("saved", "like"), [(1, True), (True, 1), (1, 1.0), (1, np.ones(())), (Key(0), 1), (1, None)])
def test_kinds_of_leaves_are_not_exchanged(file: Path, saved: Any, like: Any) -> None:
    save(file, {"a": saved})
    with pytest.raises(CheckpointError, match="\n  a: "):
        load(file, {"a": like})


# --- files that are not as they should be ----------------------------------------------------------------------------


def members(file: Path, changes: dict[str, Any], compression: int = zipfile.ZIP_STORED) -> None:
    """A checkpoint with one float32 array `a`, and changed entries of its index or members (None: without it)."""
    save(file, {"a": np.ones(3, np.float32)})
    with zipfile.ZipFile(file) as archive:
        content: dict[str, Any] = {name: archive.read(name) for name in archive.namelist()}
    index = json.loads(content["fnn.json"])
    index.update({name: value for name, value in changes.items() if name in index})
    content["fnn.json"] = json.dumps(index)
    content.update({name: data for name, data in changes.items() if name not in index})
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in content.items():
            if data is not None:
                archive.writestr(name, data)


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


class Bomb:
    def __reduce__(self) -> Any:
        return os._exit, (1,)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda file: file.write_bytes(b""), "is empty"),
        (lambda file: file.write_bytes(b"hello"), "not a zip archive"),
        (lambda file: file.write_bytes(pickle.dumps({"a": 1})), "not a zip archive"),
        (lambda file: file.write_bytes(npy(np.ones(3))), "not a zip archive"),
        (lambda file: np.savez(file, a=np.ones(3)), "no member fnn.json; numpy.load"),
        (lambda file: members(file, {"fnn.json": b"[1]"}), "of another program"),
        (lambda file: members(file, {"format": "something else"}), "of another program"),
        (lambda file: members(file, {"version": 2}), "format version 2, this fnn reads up to 1: install a newer fnn"),
        (lambda file: members(file, {"fnn.json": b"{nonsense"}), "damaged"),
        (lambda file: members(file, {"fnn.json": b"[" * 10**5}), "damaged"),
        (lambda file: members(file, {"version": "x"}), "damaged"),
        (lambda file: members(file, {"values": [1]}), "damaged"),
        (lambda file: members(file, {"a.npy": None}), "damaged.*not those that fnn.json lists"),
        (lambda file: members(file, {"b.npy": npy(np.ones(1))}), "damaged.*not those that fnn.json lists"),
        (lambda file: members(file, {"a.npy": npy(np.ones(3)) + b"more"}), "damaged"),
        (lambda file: members(file, {"a.npy": npy(np.ones(3))[:-1]}), "damaged"),
        (lambda file: members(file, {"a.npy": b"not an array"}), "damaged"),
        (lambda file: members(file, {}, zipfile.ZIP_DEFLATED), "compressed"),
        (lambda file: members(file, {"a.npy": npy(np.array([Bomb()]))}), "a holds pickled objects"),
        (lambda file: members(file, {"a.npy": npy(np.array([(1, Bomb())], "i4,O"))}), "a holds pickled objects"),
    ],
)
def test_other_files_are_refused_by_name(file: Path, make: Callable[[Path], object], words: str) -> None:
    make(file)
    with pytest.raises(CheckpointError, match=words) as caught:
        load(file, {"a": np.ones(3, np.float32)})
    assert str(caught.value).startswith(str(file))


def test_a_missing_file_and_a_directory(file: Path) -> None:
    for read in (load_arrays, load_metadata):
        with pytest.raises(FileNotFoundError, match="run.npz"):
            read(file)
        with pytest.raises(IsADirectoryError):
            read(file.parent)


def test_every_cut_is_noticed(file: Path) -> None:
    tree = {"a": np.arange(3.0), "ü": 1}
    save(file, tree)
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            load(file, tree)


def test_no_altered_bit_alters_what_is_read(file: Path) -> None:
    """A changed bit is noticed, or means nothing (a time stamp): never another tree, never another error."""
    tree = {"params": {"ü": np.arange(3.0), "b": np.ones((2, 1), np.float32)}, "step": 5}
    save(file, tree, metadata={"a": 1})
    whole = bytearray(file.read_bytes())
    noticed = 0
    for position in range(len(whole)):
        bit = 1 << position * 5 % 8
        whole[position] ^= bit
        file.write_bytes(whole)
        whole[position] ^= bit
        try:
            assert identical((load(file, blank(tree)), load_metadata(file)), (tree, {"a": 1})), position
            assert list(load_arrays(file)) == ["params/ü", "params/b"], position
        except CheckpointError:
            noticed += 1
    assert noticed > 0.7 * len(whole)


# --- places that cannot be written to --------------------------------------------------------------------------------


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="cannot write in this directory.*nowhere'$"):
        save(tmp_path / "nowhere" / "run.npz", run())
    (tmp_path / "a_file").touch()
    with pytest.raises(NotADirectoryError, match="a_file'$"):
        save(tmp_path / "a_file" / "run.npz", run())


@pytest.mark.skipif(sys.platform != "linux", reason="needs a directory that even the superuser cannot write to")
def test_a_directory_that_cannot_be_written_to_is_named() -> None:
    with pytest.raises(OSError, match="cannot write in this directory.*'/proc'$"):
        save("/proc/run.npz", run())


def test_only_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(IsADirectoryError, match="run"):
        save(tmp_path / "run", run())
    with pytest.raises(OSError, match=os.devnull):
        save(os.devnull, run())
    assert os.listdir(tmp_path) == ["run"] and not os.path.isfile(os.devnull)


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    link = tmp_path / "latest.npz"
    link.symlink_to(tmp_path / "runs" / "7.npz")
    for seed in (1, 2):
        save(link, run(seed))
        assert link.is_symlink() and identical(load(link, run()), run(seed))
    assert os.listdir(tmp_path / "runs") == ["7.npz"]


# --- all or nothing --------------------------------------------------------------------------------------------------

WAYS = ["unnamed", "no O_TMPFILE", "no /proc"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every way of writing, wherever the tests run."""
    take_away(request.param, monkeypatch.delattr, monkeypatch.setattr)
    return str(request.param)


def take_away(way: str, remove: Callable[..., None], put: Callable[..., None]) -> None:
    if way == "no O_TMPFILE":
        remove(os, "O_TMPFILE", False)
    if way == "no /proc":

        def link(*_: Any, **__: Any) -> None:
            raise FileNotFoundError(2, "No such file or directory")

        put(os, "link", link)


def test_every_way_replaces_the_file_and_what_a_kill_has_left(file: Path, way: str) -> None:
    for seed in (1, 2):
        file.with_name("run.npz.tmp").write_bytes(b"left over, longer than the new file" * 999)
        save(file, run(seed))
        assert identical(load(file, run()), run(seed)) and os.listdir(file.parent) == ["run.npz"]


def test_a_left_over_does_not_make_a_save_write_twice(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.with_name("run.npz.tmp").touch()
    written: list[Any] = []
    monkeypatch.setattr(np.lib.format, "write_array", lambda member, array, **_: written.append(array))
    save(file, {"a": np.ones(2)})
    assert len(written) == 1


def test_the_file_has_the_permissions_of_an_ordinary_one(file: Path, way: str) -> None:
    save(file, run())
    (file.parent / "other").touch()
    assert file.stat().st_mode == (file.parent / "other").stat().st_mode


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("place", ["write_array", "fsync", "replace"])
def test_an_error_while_writing_leaves_the_old_file(
    file: Path, way: str, error: BaseException, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(file, run(1))
    calls = 0

    def fails(*_: Any, **__: Any) -> None:
        nonlocal calls
        calls += 1
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format if place == "write_array" else os, place, fails)
        with pytest.raises(type(error)):
            save(file, run(2))
    assert calls and os.listdir(file.parent) == ["run.npz"] and identical(load(file, run()), run(1))


def test_a_second_process_cannot_have_a_half_written_file_put_in_place(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    save(file, run(1))
    fsync = os.fsync

    def meanwhile(descriptor: int) -> None:
        file.with_name("run.npz.tmp").unlink()
        file.with_name("run.npz.tmp").write_bytes(b"half of an")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", meanwhile)
    with pytest.raises(OSError, match="another process"):
        save(file, run(2))
    assert identical(load(file, run()), run(1))


# Killed: `kill` runs in an interpreter of its own (no threads), which imports once and forks for every trial.


def plain_save(path: Path, tree: Any) -> None:
    """The deliberately wrong twin: writes into the file itself."""
    leaves = checkpoint._leaves(tree)
    with open(path, "wb") as file:
        index = {"format": "fnn checkpoint", "version": 1, "arrays": [*leaves], "values": {}, "metadata": {}}
        checkpoint._write(file, index, leaves)  # type: ignore[arg-type]


def numbered(n: int) -> Any:
    return {"a": np.full(20_000, n), "b": np.full((3, 5), n, np.float32), "n": np.array(n)}


def number_in(file: Path) -> int:
    tree = load(file, numbered(0))
    n = int(tree["n"])
    assert identical(tree, numbered(n))
    return n


def kill_at_random(file: Path, saver: Callable[[Path, Any], None], trials: int) -> dict[str, int]:
    """Kills processes that save 1, 2, 3, ... and report each number; what is found afterwards."""
    rng = np.random.default_rng(0)
    found = {"damaged": 0, "half left over": 0, "other litter": 0, "lost": 0, "new": 0}
    saver(file, numbered(0))
    for _ in range(trials):
        before = number_in(file)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            for n in range(before + 1, before + 100_000):
                saver(file, numbered(n))
                os.write(writer, n.to_bytes(4, "little"))
            os._exit(1)
        os.close(writer)
        os.read(reader, 4)  # it has saved once: now at any moment
        time.sleep(rng.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        with open(reader, "rb") as reports:
            reported = reports.read()
        last = int.from_bytes(reported[-4:], "little") if reported else before + 1
        try:
            n = number_in(file)
            found["lost"] += n not in (last, last + 1)
            found["new"] += n > before
        except CheckpointError:
            found["damaged"] += 1
            saver(file, numbered(last))
        names = {*os.listdir(file.parent)}
        if "run.npz.tmp" in names and has_unnamed_files(file.parent):
            try:
                number_in(file.with_name("run.npz.tmp"))
            except CheckpointError:
                found["half left over"] += 1
        found["other litter"] += bool(names - {"run.npz", "run.npz.tmp"})
    saver(file, numbered(0))
    found["other litter"] += os.listdir(file.parent) != ["run.npz"]
    return found


def has_unnamed_files(directory: Path) -> bool:
    try:
        os.close(os.open(directory, os.O_TMPFILE | os.O_WRONLY))
    except (AttributeError, OSError):
        return False
    return True


CALLS = ["open", "link", "unlink", "fsync", "replace", "close"]


def kill_at_every_call(file: Path, way: str) -> list[str]:
    """For every call that a save makes to the system, in order, a process that is killed just before it."""
    take_away(way, lambda module, name, _: delattr(module, name), setattr)
    file.unlink(missing_ok=True)
    outcomes: list[str] = []
    while not outcomes or outcomes[-1] != "done":
        save(file, numbered(1))
        assert os.listdir(file.parent) == ["run.npz"], outcomes
        child = os.fork()
        if not child:
            left = iter(range(len(outcomes), -1, -1))

            def killing(call: Callable[..., Any]) -> Callable[..., Any]:
                def killed(*args: Any, **kwargs: Any) -> Any:
                    if not next(left, 1):
                        os.kill(os.getpid(), signal.SIGKILL)
                    return call(*args, **kwargs)

                return killed

            for name in CALLS:
                setattr(os, name, killing(getattr(os, name)))
            np.lib.format.write_array = killing(np.lib.format.write_array)
            save(file, numbered(2))
            os._exit(0)
        killed = bool(os.waitpid(child, 0)[1])
        rest = {*os.listdir(file.parent)} - {"run.npz"}
        assert rest <= {"run.npz.tmp"}
        outcomes.append(f"{number_in(file)} {'and a left-over' if rest else 'alone'}" if killed else "done")
    assert number_in(file) == 2
    return outcomes


def in_a_process(call: str, file: Path) -> Any:
    code = f"import json; from pathlib import Path; import tests.test_checkpoint as t; file = Path({str(file)!r}); "
    done = subprocess.run(
        [sys.executable, "-c", code + f"print(json.dumps(t.{call}))"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes to fork and kill")


@needs_fork
@pytest.mark.parametrize("way", WAYS)
def test_killed_before_any_system_call_the_old_or_the_new_file_is_there(file: Path, way: str) -> None:
    *outcomes, done = in_a_process(f"kill_at_every_call(file, {way!r})", file)
    assert done == "done" and len(outcomes) >= 7
    assert outcomes == sorted(outcomes, key=lambda outcome: outcome[0])  # first the old one, then the new one
    assert {"1 alone", "2 alone"} <= {*outcomes}
    if way == "unnamed" and has_unnamed_files(file.parent):
        assert outcomes.count("1 and a left-over") == 1  # between giving it the temporary name and the final one


@needs_fork
def test_killed_at_random_moments_the_old_or_the_new_file_is_there(file: Path) -> None:
    found = in_a_process("kill_at_random(file, t.save, 60)", file)
    assert found == {"damaged": 0, "half left over": 0, "other litter": 0, "lost": 0, "new": 60}


@needs_fork
def test_the_trial_by_killing_finds_a_save_that_is_not_atomic(file: Path) -> None:
    assert in_a_process("kill_at_random(file, t.plain_save, 25)", file)["damaged"]


@pytest.mark.parametrize("k", range(1, 40, 3))
def test_an_interrupt_while_saving_comes_as_one(tmp_path: Path, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path, tree = tmp_path / "run.npz", {f"a{i}": np.arange(4.0) for i in range(20)}
    save(path, tree)
    calls = [k]

    def write_array(*args: Any, **options: Any) -> None:
        calls[0] -= 1
        if calls[0] == 0:
            raise KeyboardInterrupt
        original(*args, **options)

    original = np.lib.format.write_array
    monkeypatch.setattr(np.lib.format, "write_array", write_array)
    if k <= 20:
        with pytest.raises(KeyboardInterrupt):
            save(path, {**tree, "a0": np.zeros(3)})
    monkeypatch.undo()
    assert load_arrays(path)["a0"].size == 4
