"""From what a cell says to what the model is sent: template, variables, the notebook around the cell."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nbllm.errors import ParameterError

if TYPE_CHECKING:
    from nbllm.notebook.arguments import ChatArguments
    from nbllm.notebook.seen import Seen
    from nbllm.notebook.settings import NbLLM
    from nbllm.notebook.templates import Template


class Composer:
    """Fills in what a cell left to its template, to the settings and to the notebook."""

    def __init__(self, shell: Any, seen: Seen, settings: NbLLM) -> None:
        self._shell, self._seen, self._settings = shell, seen, settings

    def compose(self, asked: ChatArguments, before: str = "") -> ChatArguments:
        """The same arguments with nothing left open: `prompt` is what is sent, `options` hold all that was chosen.

        Args:
            before: goes before the cell's own text as it is.

        Raises:
            InvalidRequestError: a template, a variable or a schema cannot be used; the message says why.
        """
        template = self._template(asked.template)
        text = self._text(asked, asked.prompt, template)
        context = self._context(asked.context) if asked.context else ""
        text = "\n\n".join(part for part in (context, before, text) if part)
        system = self._system(asked, template)
        return replace(
            asked,
            prompt=text,
            system=system,
            model=asked.model or (template and template.model) or self._settings.model,
            cache=asked.cache or self._settings.cache,
            options=self._options(asked, template),
        )

    def _template(self, name: str | None) -> Template | None:
        if name is None:
            return None
        from nbllm.notebook.templates import find

        return find(name, template_folders(self._settings))

    def _text(self, asked: ChatArguments, text: str, template: Template | None) -> str:
        if template is None:
            if asked.parameter:
                raise ParameterError("-p", "gives values to a template; name one with -t NAME (%llm templates)")
            return text if asked.raw else self.interpolated(text)
        filled = text if asked.raw else self.interpolated(text)
        values = asked.parameter if asked.raw else {name: self.interpolated(v) for name, v in asked.parameter.items()}
        return template.fill(values, filled)

    def interpolated(self, text: str) -> str:
        """The text with the notebook's variables in their places."""
        if "{" not in text:
            return text
        from nbllm.notebook.interpolation import interpolate
        from nbllm.notebook.values import as_text

        budget = self._settings.value_tokens
        return interpolate(text, self._names(), lambda value, spec: as_text(value, spec, budget=budget))

    def _names(self) -> Mapping[str, object]:
        """The user's variables, In and Out among them, and the errors of earlier cells as Err.

        IPython's own In holds what became of a cell's magics, not what was typed.
        """
        names, history = self._shell.user_ns, self._shell.history_manager
        typed = {"In": history.input_hist_raw} if names.get("In") is history.input_hist_parsed else {}
        return ChainMap(typed, names, {"Err": self._seen.errors})

    def _context(self, count: int) -> str:
        from nbllm.notebook.context import recent_cells
        from nbllm.notebook.values import estimate_tokens

        return recent_cells(self._shell, self._seen, count, estimate=estimate_tokens)

    def _system(self, asked: ChatArguments, template: Template | None) -> str | None:
        if asked.system is not None:
            return asked.system if asked.raw else self.interpolated(asked.system)
        if template is not None and template.system is not None:
            return template.system
        return None

    def _options(self, asked: ChatArguments, template: Template | None) -> dict[str, Any]:
        options = {**self._settings.options, **(template.parameters if template else {}), **asked.options}
        if asked.schema is not None:
            if "response_format" in asked.options:
                raise ParameterError("--schema", "says the same thing as -o response_format; give one of them")
            options["response_format"] = self.schema(asked.schema)
        if asked.think is not None:
            options["template_options"] = {**options.get("template_options", {}), "enable_thinking": asked.think}
        return options

    def schema(self, text: str) -> Any:
        """A schema in words, or the variable that holds one: a dict, a list of choices or a pydantic model."""
        if text.isidentifier() and text in self._shell.user_ns:
            return _form(text, self._shell.user_ns[text])
        from nbllm.chat.schemas import schema_from_text

        return schema_from_text(text)


def _form(name: str, value: object) -> object:
    """A variable's value, if it can be a schema: one that happens to be called as a field is must not become one."""
    if isinstance(value, dict | list | tuple | type):
        return value
    raise ParameterError(
        "--schema",
        f"the variable {name} holds a {type(value).__name__}, not a dict, a list of choices or a pydantic model; "
        f"for a field of that name write '{name} str'",
    )


def template_folders(settings: NbLLM) -> list[str]:
    """Where templates are looked for, first come first: settings, beside the notebook, the user's folder."""
    import platformdirs

    user = platformdirs.user_config_path("nbllm") / "templates"
    return [*settings.template_folders, "templates", ".nbllm/templates", str(user)]
