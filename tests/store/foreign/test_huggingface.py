from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbllm.errors import InsufficientMemoryError, ModelNotFoundError
from nbllm.store.foreign.huggingface import Repository, huggingface_models, repositories
from nbllm.store.foreign.look import Entry, Look
from nbllm.store.remote.names import hub_name
from tests.store import gguf_writer as g
from tests.store.foreign.made import COMMIT, OLDER, TINY, hub_file, hub_main

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links")
ROOM = 10**12


def models(folder: Path) -> dict[str, Entry]:
    return huggingface_models(Look(folder))


def only(folder: Path) -> Repository:
    (repository,) = repositories(Look(folder))
    return repository


def meant(folder: Path, name: str, memory_bytes: int = ROOM) -> str:
    wanted = hub_name(name)
    assert wanted is not None
    return only(folder).meant(wanted, memory_bytes).path.name


def test_models_by_their_quantizations(tmp_path: Path) -> None:
    small, large = hub_file(tmp_path, "tiny-Q4_K_M.gguf"), hub_file(tmp_path, "sub/tiny.Q8_0.gguf")

    assert models(tmp_path) == {"org/tiny-GGUF:Q4_K_M": Entry(small), "org/tiny-GGUF:Q8_0": Entry(large)}


def test_models_by_their_files_where_quantizations_do_not_say_which(tmp_path: Path) -> None:
    for file in ("a-Q4_0.gguf", "sub/b-Q4_0.gguf", "plain.gguf"):
        hub_file(tmp_path, file)

    assert list(models(tmp_path)) == [
        "org/tiny-GGUF/a-Q4_0.gguf",
        "org/tiny-GGUF/plain.gguf",
        "org/tiny-GGUF/sub/b-Q4_0.gguf",
    ]


def test_projectors_and_later_parts_are_no_models(tmp_path: Path) -> None:
    hub_file(tmp_path, "mmproj-F16.gguf")
    hub_file(tmp_path, "tiny-mmproj-F16.gguf")
    for number in (1, 2):
        hub_file(tmp_path, f"tiny-Q8_0-0000{number}-of-00002.gguf")

    assert list(models(tmp_path)) == ["org/tiny-GGUF:Q8_0"]


@pytest.mark.parametrize(
    ("repository", "commit", "file"),
    [
        ("gpt2", COMMIT, "a.gguf"),
        ("org--a--b", COMMIT, "a.gguf"),
        ("org--", COMMIT, "a.gguf"),
        ("org--a b", COMMIT, "a.gguf"),
        ("org--a", "main", "a.gguf"),
        ("org--a", COMMIT, "config.json"),
        ("org--a", COMMIT, ".hidden.gguf"),
        ("org--a", COMMIT, "a\nb.gguf"),
        ("org--a", COMMIT, "1/2/3/deep.gguf"),
    ],
    ids=ascii,
)
def test_what_the_hub_could_not_have_named_is_left_out(repository: str, commit: str, file: str, tmp_path: Path) -> None:
    hub_file(tmp_path, file, repository=repository, commit=commit)

    assert models(tmp_path) == {}


def test_data_sets_are_left_out(tmp_path: Path) -> None:
    hub_file(tmp_path, "a.gguf")
    (tmp_path / "models--org--tiny-GGUF").rename(tmp_path / "datasets--org--tiny-GGUF")

    assert models(tmp_path) == {}


def test_file_without_a_link_as_on_windows(tmp_path: Path) -> None:
    path = g.write(tmp_path / "models--org--a" / "snapshots" / COMMIT / "a-Q4_0.gguf", TINY)

    assert models(tmp_path) == {"org/a:Q4_0": Entry(path)}


def test_mains_snapshot_goes_before_others_which_add_what_it_lacks(tmp_path: Path) -> None:
    new = hub_file(tmp_path, "a-Q4_0.gguf", commit=COMMIT)
    hub_file(tmp_path, "a-Q4_0.gguf", commit=OLDER)
    left = hub_file(tmp_path, "a-Q8_0.gguf", commit=OLDER)
    os.utime(new.parent, ns=(1, 1))
    hub_main(tmp_path, COMMIT)

    assert models(tmp_path) == {"org/tiny-GGUF:Q4_0": Entry(new), "org/tiny-GGUF:Q8_0": Entry(left)}


def test_latest_snapshot_where_main_is_not_said(tmp_path: Path) -> None:
    old, new = (hub_file(tmp_path, "a-Q4_0.gguf", commit=commit) for commit in (COMMIT, OLDER))
    os.utime(old.parent, ns=(1, 1))

    assert models(tmp_path) == {"org/tiny-GGUF:Q4_0": Entry(new)}


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("../../blobs/none", "is a link that leads nowhere"),
        ("{outside}", "leads out of its store"),
        ("../../../../outside.gguf", "leads out of its store"),
        ("../../blobs", "is not a file"),
    ],
    ids=["dangling", "outside", "outside-relative", "folder"],
)
def test_damaged_link_is_told(target: str, problem: str, tmp_path: Path) -> None:
    store, outside = tmp_path / "hub", g.write(tmp_path / "outside.gguf", TINY)
    link = hub_file(store, "a-Q4_0.gguf")
    link.unlink()
    link.symlink_to(target.format(outside=outside))

    (entry,) = models(store).values()

    assert problem in entry.problem
    assert str(tmp_path) not in entry.problem


def test_part_that_leads_out_damages_its_model(tmp_path: Path) -> None:
    store, outside = tmp_path / "hub", g.write(tmp_path / "outside.gguf", TINY)
    hub_file(store, "a-Q8_0-00001-of-00002.gguf")
    part = hub_file(store, "a-Q8_0-00002-of-00002.gguf")
    part.unlink()
    part.symlink_to(outside)

    (entry,) = models(store).values()

    assert "its part a-Q8_0-00002-of-00002.gguf is a link that leads out" in entry.problem


def test_meant_is_the_best_that_fits(tmp_path: Path) -> None:
    for label, extra in (("Q4_0", 0), ("Q8_0", 10**6), ("F16", 2 * 10**6)):
        hub_file(tmp_path, f"a-{label}.gguf", TINY + b"\0" * extra)

    assert meant(tmp_path, "hf:org/tiny-GGUF") == "a-Q8_0.gguf"
    assert meant(tmp_path, "hf:Org/Tiny-gguf:latest", 514 * 10**6) == "a-Q8_0.gguf"
    assert meant(tmp_path, "hf:org/tiny-GGUF", 513 * 10**6) == "a-Q4_0.gguf"
    assert meant(tmp_path, "hf:org/tiny-GGUF:f16", 1) == "a-F16.gguf"
    assert meant(tmp_path, "hf:org/tiny-GGUF/a-F16.gguf", 1) == "a-F16.gguf"
    with pytest.raises(InsufficientMemoryError, match="no quantization in org/tiny-GGUF fits"):
        meant(tmp_path, "hf:org/tiny-GGUF", 1)


def test_meant_none(tmp_path: Path) -> None:
    hub_file(tmp_path, "a-Q4_0.gguf")

    with pytest.raises(ModelNotFoundError, match="in the Hugging Face cache, org/tiny-GGUF has no Q2_K; it has Q4_0"):
        meant(tmp_path, "hf:org/tiny-GGUF:Q2_K")
