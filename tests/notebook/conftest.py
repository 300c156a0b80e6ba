"""A shell without a front end, and models that say what a test wrote down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from nbllm.errors import ModelNotFoundError
from nbllm.notebook.extension import load_ipython_extension
from nbllm.session.model import Model
from nbllm.testing import ScriptedEngine

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionResult

    from nbllm.core.presets import Preset


class Publisher(CapturingDisplayPublisher):
    """Keeps what was published; `on_publish` may act as a person does who watches the output."""

    on_publish: Callable[[dict[str, Any]], None] | None = None

    def publish(self, data: dict[str, Any], *args: Any, **options: Any) -> None:
        super().publish(data, *args, **options)  # type: ignore[no-untyped-call]
        if self.on_publish is not None:
            self.on_publish(data)


class ScriptedModels:
    """One model, `toy`, that has to be loaded at first.

    Args:
        file: what stands for the model's file.
    """

    def __init__(self, file: Path) -> None:
        self.engine = ScriptedEngine()
        self.model = Model(self.engine)
        self.num_loads = 0
        self.load_options: dict[str, Any] = {}
        self._file = file

    def loaded(self, name: str | None) -> Model | None:
        self.path(name)
        return self.model if self.num_loads else None

    def load(self, name: str | None, **options: Any) -> Model:
        self.path(name)
        self.num_loads += 1
        self.load_options = options
        return self.model

    def all_loaded(self) -> list[Model]:
        return [self.model] if self.num_loads else []

    def path(self, name: str | None) -> str:
        if name not in (None, "toy"):
            raise ModelNotFoundError(f"no model {name!r}; the closest names: toy")
        return str(self._file)

    def preset(self, name: str | None) -> Preset | None:
        return None

    def default(self) -> str:
        return "toy"


class Notebook:
    """Runs cells in a shell and keeps what they displayed.

    Attributes:
        next_inputs: what was put into cells, and whether that was the one that ran.
    """

    def __init__(self, shell: Any, models: ScriptedModels) -> None:
        self.shell, self.models, self.engine = shell, models, models.engine
        self.publisher = Publisher()  # type: ignore[no-untyped-call]
        shell.display_pub = self.publisher
        self.next_inputs: list[tuple[str, bool]] = []
        shell.set_next_input = lambda text, replace=False: self.next_inputs.append((text, replace))

    def run(self, code: str, cell_id: str | None = None) -> ExecutionResult:
        self.publisher.outputs.clear()
        result: ExecutionResult = self.shell.run_cell(code, store_history=True, cell_id=cell_id)
        return result

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """What was published since the last cell began, updates included."""
        return self.publisher.outputs

    @property
    def plain(self) -> str:
        text: str = self.outputs[-1]["data"]["text/plain"]
        return text

    @property
    def markdown(self) -> str:
        text: str = self.outputs[-1]["data"]["text/markdown"]
        return text


@pytest.fixture
def shell() -> Any:
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    return InteractiveShell(config=config)  # type: ignore[no-untyped-call]


@pytest.fixture
def notebook(shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Notebook:
    """A shell with the extension, whose model is a script, in a folder of its own."""
    file = tmp_path / "toy.gguf"
    file.write_bytes(b"GGUF")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    models = ScriptedModels(file)
    load_ipython_extension(shell, models)
    return Notebook(shell, models)
