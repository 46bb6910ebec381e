"""Layers made of layers: one after the other, side by side, wrapped, with parameters made of others, as a graph."""

from fnn.combinators.branches import fan_in_concat, fan_in_mul, fan_in_sum, fan_out, parallel, residual
from fnn.combinators.core import combinator, located, name_children, named, with_entries
from fnn.combinators.graph import dag
from fnn.combinators.parameters import SpectralNorm, WeightNorm, low_rank, reparam, tied
from fnn.combinators.sequential import repeat, serial
from fnn.combinators.wrappers import Record, frozen, mapped, remat, tap

__all__ = [
    "Record",
    "SpectralNorm",
    "WeightNorm",
    "combinator",
    "dag",
    "fan_in_concat",
    "fan_in_mul",
    "fan_in_sum",
    "fan_out",
    "frozen",
    "located",
    "low_rank",
    "mapped",
    "name_children",
    "named",
    "parallel",
    "remat",
    "reparam",
    "repeat",
    "residual",
    "serial",
    "tap",
    "tied",
    "with_entries",
]
