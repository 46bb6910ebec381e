"""The conformance table: one module a family, each with its rows in `CASES`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from tests.case import Case

FAMILIES: dict[str, list[Case]] = {
    module.name: import_module(f"{__name__}.{module.name}").CASES for module in pkgutil.iter_modules(__path__)
}
CASES: list[Case] = [case for cases in FAMILIES.values() for case in cases]
