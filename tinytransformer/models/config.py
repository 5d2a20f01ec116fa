"""What the configurations of models have in common: the checks of their fields."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["check_config"]


def check_config(config: Any, choices: Mapping[str, tuple[str, ...]], divisors: Mapping[str, str]) -> None:
    """Refuse a configuration of which no model can be made.

    An int must be at least 1, or 0 if that is its default; a bool must be True or False; a float must be in
    [0, 1), or at least 1 if its default is.

    Parameters
    ----------
    config : dataclass
    choices : dict of str to tuple of str
        The values that a switch may have.
    divisors : dict of str to str
        A field that must divide another, and that other.

    Raises
    ------
    ValueError
        With the first field that is wrong, and what it must be.

    Examples
    --------
    >>> @dataclasses.dataclass
    ... class Sizes:
    ...     heads: "int" = 3
    ...     features: "int" = 8
    >>> check_config(Sizes(), {}, {"heads": "features"})
    Traceback (most recent call last):
    ValueError: Sizes: heads=3 does not divide features=8
    """
    name = type(config).__name__
    for field in dataclasses.fields(config):
        value, default = getattr(config, field.name), field.default
        least = 0 if default == 0 else 1
        if field.type == "int" and (type(value) is not int or value < least):
            wanted = "a positive integer" if least else "an integer of at least 0"
            raise ValueError(f"{name}: {field.name} must be {wanted}, not {value!r}")
        if field.type == "bool" and type(value) is not bool:
            raise ValueError(f"{name}: {field.name} must be True or False, not {value!r}")
        if field.type == "float":
            low, high = (1, math.inf) if isinstance(default, float) and default >= 1 else (0, 1)
            if type(value) not in (int, float) or not low <= value < high:
                raise ValueError(f"{name}: {field.name} must be in [{low}, {high}), not {value!r}")
        if field.name in choices and value not in choices[field.name]:
            known = " or ".join(map(repr, choices[field.name]))
            raise ValueError(f"{name}: {field.name} must be {known}, not {value!r}")
    for part, whole in divisors.items():
        n, m = getattr(config, part), getattr(config, whole)
        if m % n:
            raise ValueError(f"{name}: {part}={n} does not divide {whole}={m}")
