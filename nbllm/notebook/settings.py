"""What `%config NbLLM` shows and sets: what cells do where they do not say."""

from __future__ import annotations

from traitlets import Bool, Dict, Int, List, TraitError, Unicode, validate
from traitlets.config import Configurable


class NbLLM(Configurable):
    """Defaults of the cells, for `%config NbLLM.model = "..."`, or c.NbLLM in ipython_config.py."""

    model = Unicode(None, allow_none=True, help="The model of cells that name none.").tag(config=True)
    system = Unicode(
        None, allow_none=True, help="The system message of new conversations, and of questions outside of any."
    ).tag(config=True)
    options = Dict(key_trait=Unicode(), help='Options of Model.chat for every cell, such as {"temperature": 0.2}.').tag(
        config=True
    )
    cache = Bool(False, help="Answer unchanged cells from disk, as --cache does.").tag(config=True)
    usage = Bool(True, help="Show the quiet line of figures under an answer.").tag(config=True)
    autosave = Bool(
        False, help="After each turn write the conversation to NAME-DATE-TIME.jsonl beside the notebook."
    ).tag(config=True)
    value_tokens = Int(1000, min=50, max=1_000_000, help="The most tokens that {name} becomes in a prompt.").tag(
        config=True
    )
    template_folders = List(Unicode(), help="Folders to look for templates in before the usual ones.").tag(config=True)

    @validate("options")
    def _check_options(self, proposal: dict[str, object]) -> object:
        from nbllm.errors import InvalidRequestError
        from nbllm.session.requests import Options

        options = proposal["value"]
        try:
            Options.of(options)  # type: ignore[arg-type]  # the trait is a dict
        except InvalidRequestError as error:
            raise TraitError(str(error)) from error
        return options
