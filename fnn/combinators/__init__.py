"""Layers made of layers: one after the other, side by side, wrapped, with parameters made of others, as a graph."""

from fnn.combinators.core import combinator, located, name_children, named, with_entries
from fnn.combinators.sequential import repeat, serial

__all__ = [
    "combinator",
    "located",
    "name_children",
    "named",
    "repeat",
    "serial",
    "with_entries",
]
