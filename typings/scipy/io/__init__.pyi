"""The functions of scipy.io that the examples use, with the arguments that they use."""

from os import PathLike
from typing import Any

def loadmat(file_name: str | PathLike[str]) -> dict[str, Any]:
    """The variables in a MATLAB file by name."""

def savemat(file_name: str | PathLike[str], mdict: dict[str, Any]) -> None:
    """Writes variables to a MATLAB file."""
