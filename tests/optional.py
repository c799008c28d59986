"""What some tests need that may be missing; with SKAD_TEST_ALL set, they fail then."""

import os
import shutil
from importlib import import_module
from typing import Any

import pytest

ALL = bool(os.environ.get("SKAD_TEST_ALL"))


def optional(name: str) -> Any:
    """Import a module, or skip the tests that need it."""
    return import_module(name) if ALL else pytest.importorskip(name)


def program(name: str) -> str:
    """Return the path of a program, or skip the tests that need it."""
    found = shutil.which(name)
    if found is None:
        missing = pytest.fail if ALL else pytest.skip
        missing(f"the program {name} is not installed")
    return str(found)
