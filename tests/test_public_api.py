"""What `import nbllm` promises."""

from __future__ import annotations

import inspect
import re

import nbllm


def test_all_is_sorted_and_has_no_doubles() -> None:
    assert list(nbllm.__all__) == sorted(set(nbllm.__all__))


def test_every_public_name_resolves_and_says_what_it_is() -> None:
    undocumented = [name for name in nbllm.__all__ if not _is_documented(getattr(nbllm, name))]
    assert not undocumented


def test_every_public_name_is_offered_by_completion() -> None:
    assert set(nbllm.__all__) <= set(dir(nbllm))


def test_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(nbllm, "no_such_name")


def test_version_is_a_release_number() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", nbllm.__version__)


def _is_documented(value: object) -> bool:
    """A string explains itself; a class must not pass by the docstring that it inherits."""
    if isinstance(value, str):
        return True
    return bool(value.__dict__.get("__doc__") if inspect.isclass(value) else inspect.getdoc(value))
