"""How errors are shown."""

from __future__ import annotations

import pickle
import traceback
from typing import TYPE_CHECKING, Any

from nbllm.errors import EndpointError, EngineError, ModelError, in_one_line

if TYPE_CHECKING:
    import pytest


def shown(error: Any) -> list[str] | None:
    """What IPython shows in the place of a traceback."""
    return error._render_traceback_() if hasattr(error, "_render_traceback_") else None


def test_error_of_another_tree_is_one_line_where_it_is_said() -> None:
    interrupt = KeyboardInterrupt()
    assert shown(interrupt) is None
    in_one_line(interrupt, "3 of 5 rows")
    in_one_line(interrupt, "somebody who knows less")
    assert shown(interrupt) == ["KeyboardInterrupt: 3 of 5 rows"]
    assert shown(pickle.loads(pickle.dumps(interrupt))) == shown(interrupt)


def test_everything_shows_its_traceback_when_debugging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBLLM_DEBUG", "1")
    interrupt = KeyboardInterrupt()
    in_one_line(interrupt, "3 of 5 rows")
    assert shown(interrupt) is None
    error = EndpointError("nothing answers")
    assert shown(error) == traceback.format_exception(error)


def test_server_that_is_not_there_is_the_users_to_mend() -> None:
    error = EndpointError("nothing answers")
    assert isinstance(error, EngineError)
    assert isinstance(error, ModelError)
    assert shown(error) == ["EndpointError: nothing answers"]
    assert shown(EngineError("broken")) is None
