from __future__ import annotations

from fnn.layers.activation import GeluTanh
from fnn.layers.norm import RMSNorm
from fnn.layers.transformer import (
    CrossTransformerBlock,
    FeedForward,
    GatedFeedForward,
    MaskedTransformerBlock,
    TransformerBlock,
)
from tests.case import Case
from tests.cases.attention import with_flags

CASES: list[Case] = [
    Case(FeedForward(4), (3,)),
    Case(FeedForward(4, 9, activation=GeluTanh, dropout=0.2), (7, 3), wrong=((7, 6),)),
    Case(GatedFeedForward(4), (3,)),
    Case(GatedFeedForward(4, 9, dropout=0.2), (7, 3), wrong=((7, 6),)),
    Case(TransformerBlock(6, 2), (7, 6), wrong=((), (6,), (7, 3), (7, 8), (2, 7, 6))),
    Case(
        TransformerBlock(
            8,
            2,
            key_value_heads=1,
            causal=True,
            rotary=True,
            dropout=0.2,
            norm=RMSNorm(),
            feed_forward=GatedFeedForward(8, 11),
        ),
        (7, 8),
    ),
    Case(TransformerBlock(6, 3, feed_forward=FeedForward(6, 4, activation=GeluTanh)), (2, 6)),
    Case(MaskedTransformerBlock(6, 2, dropout=0.1), ((7, 6), (7,)), wrong=(((7, 6), (6,)), ((7, 8), (7,)))),
    Case(MaskedTransformerBlock(8, 2, causal=True, rotary=True), ((7, 8), (7,)), inputs=with_flags),
    Case(CrossTransformerBlock(6, 2), ((7, 6), (3, 4)), wrong=(((7, 6), (3,)), ((7, 6), (3, 2)))),
    Case(CrossTransformerBlock(8, 2, rotary=True, causal=False, dropout=0.3), ((7, 8), (3, 4))),
]
