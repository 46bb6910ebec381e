"""Programs for the type-checker: it accepts `good.py`, and rejects the marked lines of `bad.py`."""
