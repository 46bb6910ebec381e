"""The function of SciPy that reads the files of MATLAB."""

from os import PathLike
from typing import Any

def loadmat(file_name: str | PathLike[str]) -> dict[str, Any]:
    """The variables by name, and `__header__`, `__version__`, `__globals__`."""
