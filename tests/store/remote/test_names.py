from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.errors import ParameterError
from nbllm.store.remote.names import HubName, hub_name, is_safe_file


def named(file: str = "", quantization: str = "", revision: str = "main") -> HubName:
    return HubName(owner="org", repo="repo-GGUF", file=file, quantization=quantization, revision=revision)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        pytest.param("hf:org/repo-GGUF", named(), id="repository"),
        pytest.param(" HF:org/repo-GGUF ", named(), id="any case of hf"),
        pytest.param("hf:org/repo-GGUF:Q4_K_M", named(quantization="Q4_K_M"), id="quantization"),
        pytest.param("hf:org/repo-GGUF:latest", named(), id="latest"),
        pytest.param("hf:org/repo-GGUF/a b.gguf", named("a b.gguf"), id="file"),
        pytest.param("hf:org/repo-GGUF/Q8_0/a-00001-of-00002.gguf", named("Q8_0/a-00001-of-00002.gguf"), id="folder"),
        pytest.param("hf://org/repo-GGUF", named(), id="as huggingface_hub writes it"),
        pytest.param("hf.co/org/repo-GGUF:Q8_0", named(quantization="Q8_0"), id="as Ollama writes it"),
        pytest.param("https://huggingface.co/org/repo-GGUF", named(), id="page"),
        pytest.param("https://huggingface.co/org/repo-GGUF/tree/main", named(), id="list of files"),
        pytest.param("https://hf.co/org/repo-GGUF/tree/v1.0", named(revision="v1.0"), id="revision"),
        pytest.param("https://huggingface.co/org/repo-GGUF/blob/main/a.gguf", named("a.gguf"), id="a file's page"),
        pytest.param(
            "https://huggingface.co/org/repo-GGUF/resolve/v2/x/a%20b.gguf?download=true",
            named("x/a b.gguf", revision="v2"),
            id="a file's download",
        ),
    ],
)
def test_hub_name_reads_every_form(text: str, means: HubName) -> None:
    assert hub_name(text) == means


@pytest.mark.parametrize("text", ["smollm2", "smollm2:135m", "folder/file.gguf", "ollama:llama3.2:1b", "hfx:org/repo"])
def test_hub_name_leaves_other_names_alone(text: str) -> None:
    assert hub_name(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "hf:", "hf:org", "hf:org/", "hf:/repo", "hf:org/repo:", "hf:../repo", "hf:org/..",
        "hf:org/repo/../a.gguf", "hf:org/repo//etc/a.gguf", "hf:org/repo/./a.gguf", "hf:org/repo/.a.gguf",
        "hf:org/repo/a.bin", "hf:org/repo/a\0.gguf", "hf:org/repo/con.gguf", "hf:NUL/repo", "hf:org/com1",
        "hf:org/aux.x", "hf:org/repo/C:\\a.gguf", "hf:org/repo/a\\b.gguf", "hf:org/repo.",
        "hf:org/repo/d./a.gguf", "hf:org/repo:../Q4", "hf:org/repo:Q4/../..", "hf:org/repo/1/2/3/a.gguf",
        "hf:org/repo/a.gguf:Q4_0", "hf:org/r\nepo", "hf:~/repo", "hf:org/" + "r" * 97,
        "hf:org/repo/" + "a" * 500 + ".gguf", "https://example.org/org/repo", "ftp://huggingface.co/org/repo",
        "https://huggingface.co/org", "https://[/org/repo", "https://huggingface.co/org/repo/discussions/1",
        "https://huggingface.co/org/repo/blob/main/..%2f..%2fa.gguf",
        "https://huggingface.co/org/repo/blob/..%2f/a.gguf", "https://user@example.org/huggingface.co/a",
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ParameterError, match=r"hf:org/repo:Q4_K_M") as refused:
        hub_name(text)
    assert "\n" not in str(refused.value)


_PIECES = st.sampled_from(
    ["..", ".", "/", "\\", ":", "\0", "a", "con", ".gguf", "%2e", "~", "C:", " ", "org/", "\u2044"]
)


@given(st.lists(_PIECES, max_size=12).map("".join) | st.text(max_size=40))
def test_no_name_leaves_its_folder(text: str) -> None:
    for name in (f"hf:{text}", f"hf:org/{text}", f"hf:org/repo/{text}.gguf", f"https://huggingface.co/org/repo/{text}"):
        try:
            found = hub_name(name)
        except ParameterError:
            continue
        assert found is not None
        for part in (found.owner, found.repo, *(found.file.split("/") if found.file else ())):
            assert part not in ("", ".", "..")
            assert not set(part) & set('/\\:\0<>"|?*')
            assert part.isprintable()
            assert part[-1] not in ". "


@pytest.mark.parametrize(
    ("path", "is_safe"),
    [("a-Q4_K_M.gguf", True), ("x/y/a.gguf", True), ("/a.gguf", False), ("../a.gguf", False), ("x/y/z/a.gguf", False)],
)
def test_is_safe_file(path: str, is_safe: bool) -> None:
    assert is_safe_file(path) is is_safe
