"""The conformance table: one module a family, each with its rows in `CASES`."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType

from tests.case import Case

FAMILIES: dict[str, ModuleType] = {
    module.name: import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)
}
CASES: list[Case] = [case for family in FAMILIES.values() for case in family.CASES]
