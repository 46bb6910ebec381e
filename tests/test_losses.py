"""Losses: every row of the table through every law, closed forms, equalities between losses, and what is refused."""

from __future__ import annotations

import pytest

from fnn.testing import LOSS_LAWS, check_law
from tests.losses import LOSSES, LossCase

every_case = pytest.mark.parametrize("case", LOSSES, ids=str)


# --- the laws --------------------------------------------------------------------------------------------------------


@every_case
@pytest.mark.parametrize("law", LOSS_LAWS)
def test_law(case: LossCase, law: str) -> None:
    assert check_law(law, LOSS_LAWS[law], case.subject()) <= 1e-7
