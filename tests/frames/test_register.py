"""Each case has a Python of its own, for what is imported first is the question."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_NOTHING_LEFT = """
import sys
assert "PandasFinder" not in [type(finder).__name__ for finder in sys.meta_path]
import pandas
assert "exec_module" not in vars(pandas.__loader__)
assert pandas.__spec__.loader is pandas.__loader__
assert type(pandas.__loader__).__module__ == "_frozen_importlib_external"
"""
_FAKE = """
class DataFrame: pass
class Series: pass
"""
_FAKE_EXTENSIONS = """
import pandas
def _adding(kind):
    return lambda name: lambda accessor: setattr(kind, name, accessor)
register_dataframe_accessor, register_series_accessor = _adding(pandas.DataFrame), _adding(pandas.Series)
"""


def _run(script: str, *, fake: Path | None = None) -> str:
    code = script if fake is None else f"import sys; sys.path.insert(0, {str(fake)!r})\n{script}"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A folder with a pandas that loads at once and has just what registering needs."""
    package = tmp_path / "path" / "pandas"
    (package / "api").mkdir(parents=True)
    (package / "__init__.py").write_text(_FAKE)
    (package / "api" / "__init__.py").write_text("")
    (package / "api" / "extensions.py").write_text(_FAKE_EXTENSIONS)
    return package.parent


@pytest.mark.parametrize("first", ["import nbllm, pandas", "import pandas, nbllm"], ids=["nbllm", "pandas"])
def test_accessors_are_there_whichever_is_first(first: str) -> None:
    _run(f"{first}\npandas.DataFrame({{'a': [1]}}).llm.map\npandas.Series([1]).llm.map\n{_NOTHING_LEFT}")


def test_importing_nbllm_waits_once_and_loads_no_pandas() -> None:
    script = """
import importlib, sys, nbllm
from nbllm.frames import register
assert "pandas" not in sys.modules
register.register()
assert sum(isinstance(finder, register.PandasFinder) for finder in sys.meta_path) == 1
"""
    _run(script)


def test_a_search_without_an_import_changes_nothing(fake: Path) -> None:
    script = """
import importlib.util, sys, nbllm
assert importlib.util.find_spec("pandas").name == "pandas"
assert "pandas" not in sys.modules
import pandas
assert pandas.DataFrame.llm is not pandas.Series.llm
"""
    _run(script + _NOTHING_LEFT, fake=fake)


def test_after_an_import_that_fails_the_next_one_has_the_accessors(fake: Path) -> None:
    script = """
import builtins, nbllm
builtins.is_broken = True
try:
    import pandas
except RuntimeError as error:
    assert str(error) == "broken"
else:
    raise SystemExit("it did not fail")
builtins.is_broken = False
import pandas
pandas.DataFrame.llm
"""
    (fake / "pandas" / "__init__.py").write_text(f"if is_broken: raise RuntimeError('broken')\n{_FAKE}")
    _run(script + _NOTHING_LEFT, fake=fake)


def test_pandas_that_takes_no_accessors_is_imported_all_the_same(fake: Path) -> None:
    (fake / "pandas" / "api" / "extensions.py").write_text("raise ImportError('too old')")
    said = _run("import nbllm, pandas\nassert not hasattr(pandas.DataFrame, 'llm')\n" + _NOTHING_LEFT, fake=fake)
    assert said.count("\n") == 1
    assert "df.llm is not there: ImportError: too old" in said


def test_a_missing_pandas_is_the_usual_error_and_may_come_later(fake: Path) -> None:
    script = f"""
import sys
sys.path.remove({str(fake)!r})
sys.path[:] = [entry for entry in sys.path if "site-packages" not in entry]
import nbllm
try:
    import pandas
except ModuleNotFoundError as error:
    assert error.name == "pandas"
else:
    raise SystemExit("there is a pandas")
sys.path.insert(0, {str(fake)!r})
import pandas
pandas.DataFrame.llm
"""
    _run(f"import sys; sys.path.insert(0, {str(Path.cwd())!r})\n{script}", fake=fake)


def test_loaders_that_serve_several_modules_are_uncovered_after_pandas_only() -> None:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    import pandas as pd

    from nbllm.frames.register import PandasFinder

    class Shared:
        def __init__(self) -> None:
            self.executed: list[str] = []

        def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec:
            return ModuleSpec(name, self)  # type: ignore[arg-type]

        def exec_module(self, module: ModuleType) -> None:
            self.executed.append(module.__name__)

    shared = Shared()
    finder = PandasFinder()
    before = list(sys.meta_path)
    sys.meta_path[:] = [finder, shared]
    try:
        assert finder.find_spec("other") is None
        finder.find_spec("pandas")
        finder.find_spec("pandas")
        shared.exec_module(ModuleType("other"))
        assert finder in sys.meta_path
        shared.exec_module(ModuleType("pandas"))
        assert finder not in sys.meta_path
    finally:
        sys.meta_path[:] = before
    assert shared.executed == ["other", "pandas"]
    assert list(vars(shared)) == ["executed"]
    assert hasattr(pd.DataFrame, "llm")
