"""Examples of a parametrized test that show no more than the ones beside them."""

from collections.abc import Iterable
from typing import Any

import pytest


def further(examples: Iterable[Any]) -> list[Any]:
    """For `make long`; an example of several arguments is a tuple."""
    as_tuples = (each if isinstance(each, tuple) else (each,) for each in examples)
    return [pytest.param(*each, marks=pytest.mark.long) for each in as_tuples]
