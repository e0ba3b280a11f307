"""The error tree is closed: every class has its own code and a sentence."""

import re

from bundle import errors


def _classes() -> list[type[errors.BundleError]]:
    return [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.BundleError)
    ]


def test_codes_are_distinct_snake_case() -> None:
    """No two errors share a code, and a code is safe as a metric label."""
    codes = [error.code for error in _classes()]

    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


def test_tree_in_the_docstring_is_complete() -> None:
    """The drawing at the top of the module names every class."""
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")

    assert sorted(["BundleError", *drawn]) == sorted(error.__name__ for error in _classes())
