"""Recurrent layers over `(batch, time, features)`: `RNN`, `GRU`, `LSTM`, and the cells they repeat over time.

`sequence` holds what they share (time, direction, lengths, carries). `rnn`, `gru` and `lstm` hold one kind each: first
the cell, the plain formula of one step, then the same formula for all steps at once, which is what the layer runs.
"""

from fnn.layers.recurrent.gru import GRU, gru_cell
from fnn.layers.recurrent.lstm import LSTM, lstm_cell
from fnn.layers.recurrent.rnn import RNN, rnn_cell

__all__ = ["GRU", "LSTM", "RNN", "gru_cell", "lstm_cell", "rnn_cell"]
