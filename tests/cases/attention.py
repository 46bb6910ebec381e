from __future__ import annotations

from typing import Any

from numpy.random import Generator

from fnn.initializers import normal
from fnn.layers.attention import CrossAttention, MaskedAttention, MaskedCrossAttention, MultiHeadAttention
from tests.case import Case


def with_flags(generator: Generator, shape: Any) -> Any:
    """Standard normal numbers, but a boolean mask in the last place; some rows of it are all False."""
    *shapes, mask = shape
    return *(generator.standard_normal(part) for part in shapes), generator.random(mask) < 0.4


CASES: list[Case] = [
    Case(MultiHeadAttention(2), (7, 6), wrong=((), (6,), (7, 4), (7, 3), (2, 7, 6))),
    Case(MultiHeadAttention(2, causal=True), (7, 6)),
    Case(MultiHeadAttention(2, rotary=True), (7, 8), wrong=((7, 6),)),
    Case(MultiHeadAttention(4, features=24, key_value_heads=2, rotary=True, causal=True, dropout=0.1), (7, 3)),
    Case(MultiHeadAttention(3, features=12, bias_init=None), (7, 8), wrong=((7, 12),)),
    Case(MultiHeadAttention(4, features=12, key_value_heads=2, causal=True, bias_init=normal(0.5)), (7, 2)),
    Case(MultiHeadAttention(4, key_value_heads=1, dropout=0.3), (7, 8)),
    Case(MultiHeadAttention(1, causal=True, dropout=0.5), (7, 3)),
    Case(MultiHeadAttention(2, causal=True), (83, 4), label="MultiHeadAttention, causal, in two blocks of queries"),
    Case(MultiHeadAttention(2, dropout=0.2), (83, 4), label="MultiHeadAttention, dropout in two blocks of queries"),
    Case(
        MaskedAttention(2, causal=True),
        ((7, 6), (7,)),
        wrong=((7, 6), ((7, 6),), ((7, 6), (6,)), ((7, 6), (7, 6)), ((7, 3), (7,)), ((7,), (7,)), ((7, 6), (2, 7, 7))),
    ),
    Case(MaskedAttention(2, rotary=True, causal=True, key_value_heads=1), ((7, 8), (7,)), inputs=with_flags),
    Case(MaskedAttention(2), ((7, 6), (7,)), inputs=with_flags, label="MaskedAttention(2), padding"),
    Case(
        CrossAttention(2),
        ((7, 6), (3, 4)),
        wrong=((7, 6), ((7, 6), (4,)), ((7, 6), (3, 2)), ((7, 3), (3, 4)), ((7, 6), (3, 4), (3,))),
    ),
    Case(CrossAttention(4, features=8, key_value_heads=2, dropout=0.3, bias_init=None), ((3, 6), (7, 2))),
    Case(
        MaskedCrossAttention(2),
        ((7, 6), (3, 4), (7, 3)),
        wrong=(((7, 6), (3, 4)), ((7, 6), (3, 4), (3, 7)), ((7, 6), (3, 4), (7,)), ((7, 6), (3, 2), (7, 3))),
    ),
    Case(MaskedCrossAttention(4, features=8, key_value_heads=2, dropout=0.3), ((7, 6), (3, 4), (3,))),
    Case(MaskedCrossAttention(2), ((7, 6), (3, 4), (7, 3)), inputs=with_flags, label="MaskedCrossAttention(2), flags"),
]
