"""What is asked of the hub. The only file that imports huggingface_hub, and that only once somebody pulls.

huggingface_hub finds the token, sends it to the hub alone, knows proxies and mirrors, and names what the hub answers.
Its own download begins again after an interrupt, so the bytes are read here, by ranges.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nbllm._version import __version__
from nbllm.config import checked_base_url
from nbllm.errors import NbllmError, ParameterError
from nbllm.store.header import shown
from nbllm.store.pulling.errors import CutError
from nbllm.store.pulling.ranges import TRY_AGAIN, Chunks, Opener, first_byte
from nbllm.store.remote.choice import RemoteFile
from nbllm.store.remote.errors import NotThereError, PullError
from nbllm.store.remote.names import HubName

if TYPE_CHECKING:
    from huggingface_hub.hf_api import BlobLfsInfo

_ANSWER_WITHIN_S = 20.0
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_CHECK_NETWORK = "check the network, or set HF_ENDPOINT to a mirror that you can reach"
_TOKENS_PAGE = "https://huggingface.co/settings/tokens"


class Hub:
    """The hub, or the mirror of it that HF_ENDPOINT names.

    Raises:
        ParameterError: HF_ENDPOINT or the token cannot be used.
    """

    def __init__(self) -> None:
        from huggingface_hub import constants, get_token

        named = os.environ.get("HF_ENDPOINT", "").strip()
        self.endpoint = checked_base_url("HF_ENDPOINT", named) if named else "https://huggingface.co"
        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
        if token and not _TOKEN.fullmatch(token):
            raise ParameterError("HF_TOKEN", f"holds characters that no token has; copy it again from {_TOKENS_PAGE}")
        self._token: str | bool = token or False

    def files(self, name: HubName) -> tuple[str, list[RemoteFile]]:
        """The commit that the revision means now, and its files, without those that have no SHA-256.

        Raises:
            PullError: the hub cannot be reached, or will not tell.
        """
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.endpoint, token=self._token, library_name="nbllm", library_version=__version__)
        try:
            with self._translated(name):
                info = api.model_info(
                    name.repository, revision=name.revision, files_metadata=True, timeout=_ANSWER_WITHIN_S
                )
            found = [_remote_file(one.rfilename, one.lfs) for one in info.siblings or ()]
        except CutError as exc:
            raise PullError(f"cannot reach {self.endpoint} ({exc.why}): {_CHECK_NETWORK}") from None
        except (ValueError, TypeError, KeyError, AttributeError):  # a network's log-in page, say
            raise PullError(f"{self.endpoint} answers, but not as the hub does: {_CHECK_NETWORK}") from None
        return info.sha or name.revision, [file for file in found if file is not None]

    def opener(self, name: HubName, commit: str, file: RemoteFile) -> Opener:
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(name.repository, file.path, revision=commit, endpoint=self.endpoint)

        @contextmanager
        def opened(first: int, last: int) -> Iterator[Chunks]:
            from huggingface_hub import constants, get_session, hf_raise_for_status

            headers = {"User-Agent": f"nbllm/{__version__}", "Accept-Encoding": "identity"}
            headers["Range"] = f"bytes={first}-{last}"
            if self._token:
                headers["Authorization"] = (
                    f"Bearer {self._token}"  # the client drops it where a redirect leaves the hub
                )
            timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
            with self._translated(name), get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
                hf_raise_for_status(response)
                yield Chunks(first_byte(response.status_code, response.headers), response.iter_raw())

        return opened

    @contextmanager
    def _translated(self, name: HubName) -> Iterator[None]:
        """Without the causes: they hold requests, and so tokens and signed addresses."""
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        try:
            yield
        except OfflineModeIsEnabled:
            raise PullError("HF_HUB_OFFLINE is set, so the hub is not asked: unset it, and pull again") from None
        except HfHubHTTPError as exc:
            if exc.response.status_code in TRY_AGAIN:
                raise CutError(f"HTTP {exc.response.status_code}") from None
            raise self._refusal(exc, name) from None
        except httpx2.RequestError as exc:
            raise CutError(type(exc).__name__) from None

    def _refusal(self, exc: Exception, name: HubName) -> NbllmError:
        from huggingface_hub import errors

        page = f"{self.endpoint}/{name.repository}"
        status = exc.response.status_code if isinstance(exc, errors.HfHubHTTPError) else 0
        if isinstance(exc, errors.GatedRepoError):
            return NotThereError(
                f"{name.repository} is gated: accept its licence at {page}, and set HF_TOKEN to a token of yours "
                f"({_TOKENS_PAGE})"
            )
        if isinstance(exc, errors.DisabledRepoError):
            return NotThereError(f"the hub has disabled {name.repository}: see {page}")
        if isinstance(exc, errors.RevisionNotFoundError):
            return NotThereError(f"{name.repository} has no revision {shown(name.revision)}: see {page}")
        if isinstance(exc, errors.RemoteEntryNotFoundError):
            return PullError(f"the file has just gone from {name.repository}: pull again")
        if status == 429:
            return PullError("the hub has had too many requests from here: wait some minutes, or set HF_TOKEN")
        kind = NotThereError if status in (401, 403, 404) else PullError
        return kind(self._refused_or_missing(status, name, page))

    def _refused_or_missing(self, status: int, name: HubName, page: str) -> str:
        """The hub says the same of what is not there and of what is private."""
        if status in (401, 403) and self._token:
            return (
                f"the hub refuses {name.repository} to your token (HTTP {status}): check its spelling and access at "
                f"{page}, or set HF_TOKEN to another token ({_TOKENS_PAGE})"
            )
        if status in (401, 403, 404):
            return (
                f"there is no repository {name.repository} at {self.endpoint}, or it is private: check the spelling, "
                f"or set HF_TOKEN to a token that may read it ({_TOKENS_PAGE})"
            )
        return f"the hub refuses {name.repository} (HTTP {status}): see {page}"


def _remote_file(path: str, lfs: BlobLfsInfo | None) -> RemoteFile | None:
    """None without a SHA-256: the hub keeps no GGUF so."""
    if lfs is None or lfs.size <= 0 or not _SHA256.fullmatch(lfs.sha256):
        return None
    return RemoteFile(path, lfs.size, lfs.sha256)
