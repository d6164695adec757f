"""The laws by name."""

from collections.abc import Callable
from typing import Any, TypeVar

Law = Callable[..., None]
Function = TypeVar("Function", bound=Law)

LAWS: dict[str, Law] = {}


def law(function: Function) -> Function:
    """Register a law by its function's name.

    Raises:
        ValueError: there is one of this name.
    """
    name: Any = function.__name__
    if name in LAWS:
        raise ValueError(f"there is a law {name!r} already")
    LAWS[name] = function
    return function
