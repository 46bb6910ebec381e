"""Programs for the type-checker: `good.py` passes, `bad.py` fails in the marked lines; `tests/test_typing.py` runs both."""
