"""Rules for values that were read as JSON, from a file that may hold anything."""

from typing import Any

_LONGEST = 2**31 - 1  # side, in pixels or features
_LARGEST = 1e300  # number: sums of larger ones may be infinite


def fits(value: Any, rule: Any) -> bool:
    """Tell whether a value of JSON is as a rule says.

    A rule is a function, a type, a value, a tuple of alternatives, or a list or a dict
    of rules for as many items.
    """
    if isinstance(rule, dict):
        same = isinstance(value, dict) and value.keys() == rule.keys()
        return same and all(fits(value[name], rule[name]) for name in rule)
    if isinstance(rule, list):
        same = isinstance(value, list) and len(value) == len(rule)
        return same and all(map(fits, value, rule))
    if isinstance(rule, tuple):
        return any(fits(value, each) for each in rule)
    if isinstance(rule, type):
        return type(value) is rule
    return rule(value) if callable(rule) else value == rule


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number, and no bool."""
    return type(value) in (int, float) and abs(value) <= _LARGEST  # no NaN


def is_side(value: Any) -> bool:
    """Tell whether a value is an int of at least 1."""
    return type(value) is int and 1 <= value <= _LONGEST


def is_rate(value: Any) -> bool:
    """Tell whether a value is a number between 0 and 1."""
    return is_number(value) and 0 < value < 1
