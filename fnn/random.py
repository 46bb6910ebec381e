"""Randomness as a value. A `Key` is a place in a tree of random streams, not a stream: using it changes nothing.

>>> key = Key(0)
>>> bool(key.fold_in("a").generator().random() == key.fold_in("a").generator().random())
True
"""

from __future__ import annotations

import operator
from types import ModuleType
from typing import TYPE_CHECKING, SupportsIndex

import attrs

if TYPE_CHECKING:
    from numpy.random import Generator

_new, _set = object.__new__, object.__setattr__


def _seed(value: SupportsIndex) -> int:
    seed = -1 if isinstance(value, bool) or not hasattr(value, "__index__") else operator.index(value)
    if not 0 <= seed < 2**128:
        raise ValueError(f"Key: expected a seed that is an integer from 0 to 2**128 - 1, got {value!r}")
    return seed


@attrs.frozen
class Key:
    """A source of randomness: a seed and the path of names and integers folded into it.

    Equal keys give equal numbers; different paths give independent ones. `fold_in` is cheap (nothing is hashed), so a
    key can be derived for every layer of every step; the path is hashed where numbers are drawn, in `generator`.
    """

    entropy: int = attrs.field(converter=_seed)
    path: tuple[int | str, ...] = ()

    def fold_in(self, part: SupportsIndex | str) -> Key:
        """The key one step further down: `key.fold_in("order").fold_in(epoch)`."""
        if type(part) is not int and type(part) is not str:
            part = _part(part)
        key: Key = _new(Key)  # attrs' own constructor would check the seed again at every step
        _set(key, "entropy", self.entropy)
        _set(key, "path", (*self.path, part))
        return key

    def generator(self) -> Generator:
        """A new NumPy `Generator`, a pure function of the key (`SeedSequence` over an injective code of the path)."""
        from numpy.random import PCG64, Generator, SeedSequence

        words = tuple(word for part in self.path for word in _encode(part))
        return Generator(PCG64(SeedSequence(self.entropy, spawn_key=words)))


def _part(part: SupportsIndex | str) -> int | str:
    if isinstance(part, str):
        return str(part)
    try:
        return operator.index(part)
    except TypeError:
        raise TypeError(f"Key.fold_in: expected a name or an integer, got {part!r}") from None


def _encode(part: int | str) -> list[int]:
    """32-bit words that no other part, and no sequence of other parts, begins with: kind, length, content."""
    if isinstance(part, str):
        kind, content = 0, part.encode(errors="surrogatepass")  # file names may hold lone surrogates
    else:
        kind, content = 1 if part >= 0 else 2, abs(part).to_bytes((part.bit_length() + 7) // 8, "little")
    words = [int.from_bytes(content[i : i + 4], "little") for i in range(0, len(content), 4)]
    return [kind, len(content), *words]


def generator_modules() -> list[ModuleType]:
    """The modules in which NumPy's generators are written, in C; a recorder has to spare them."""
    import sys

    import numpy as np
    from numpy.random import Generator

    home = Generator.__module__.rpartition(".")[0] + "."
    found = [module for name, module in [*sys.modules.items()] if name.startswith(home)]
    return [module for module in found if getattr(module, "np", None) is np]
