from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from nbllm.config import Config
from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.store.blobs import BLOBS_FOLDER, BlobWriter, blob_path, find_blob, is_digest
from nbllm.store.folder import folder_models

DATA = b"GGUF and more"
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


def left(config: Config) -> list[str]:
    folder = config.models_dir / BLOBS_FOLDER
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_blob_written_in_pieces(config: Config) -> None:
    assert find_blob(DIGEST, config) is None

    with BlobWriter(DIGEST, config) as blob:
        for byte in DATA:
            blob.write(bytes([byte]))
        path = blob.finish()

    assert path == blob_path(DIGEST, config) == find_blob(DIGEST, config)
    assert path.read_bytes() == DATA
    assert left(config) == [DIGEST.replace(":", "-")]
    assert folder_models(config.models_dir) == {}


def test_blob_written_again(config: Config) -> None:
    for _ in range(2):
        with BlobWriter(DIGEST, config) as blob:
            blob.write(DATA)
            blob.finish()

    assert left(config) == [DIGEST.replace(":", "-")]


def test_blob_with_another_hash_leaves_nothing(config: Config) -> None:
    with BlobWriter(DIGEST, config) as blob:
        blob.write(DATA + b"!")
        with pytest.raises(ParameterError, match=r"^digest: what was sent is sha256:"):
            blob.finish()

    assert left(config) == []


def test_blob_unfinished_leaves_nothing(config: Config) -> None:
    with BlobWriter(DIGEST, config) as blob:
        blob.write(DATA)
        assert find_blob(DIGEST, config) is None

    with pytest.raises(KeyboardInterrupt), BlobWriter(DIGEST, config) as blob:
        raise KeyboardInterrupt

    assert left(config) == []


def test_blob_on_a_full_disk_leaves_nothing(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with BlobWriter(DIGEST, config) as blob:
        blob.write(DATA)
        with pytest.raises(InvalidRequestError, match="No space left on device"):
            blob.finish()

    assert left(config) == []


def test_blob_where_the_folder_cannot_be(config: Config) -> None:
    (config.models_dir / BLOBS_FOLDER).write_text("in the way")

    with pytest.raises(InvalidRequestError, match="cannot write to"), BlobWriter(DIGEST, config):
        pass


def test_blob_writer_removes_old_leftovers_only(config: Config) -> None:
    folder = config.models_dir / BLOBS_FOLDER
    folder.mkdir()
    for name, age_s in (("old.part", 90_000), ("young.part", 10), ("sha256-ab", 90_000)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age_s,) * 2)

    with BlobWriter(DIGEST, config):
        pass

    assert left(config) == ["sha256-ab", "young.part"]


def test_blob_writer_outside_of_its_with(config: Config) -> None:
    with pytest.raises(RuntimeError):
        BlobWriter(DIGEST, config).write(DATA)


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha256:",
        DIGEST.upper(),
        DIGEST[:-1],
        DIGEST + "0",
        DIGEST + "\n",
        DIGEST.replace(":", "-"),
        "sha256:" + "../" * 21 + "a",
    ],
    ids=["empty", "prefix", "upper", "short", "long", "newline", "dash", "path"],
)
def test_blob_path_refuses(digest: str, config: Config) -> None:
    assert not is_digest(digest)
    with pytest.raises(ParameterError, match="64 lower-case hex digits"):
        blob_path(digest, config)


def test_find_blob_takes_no_folder_and_no_link(config: Config, tmp_path: Path) -> None:
    path = blob_path(DIGEST, config)
    path.mkdir(parents=True)
    assert find_blob(DIGEST, config) is None

    path.rmdir()
    (tmp_path / "secret").touch()
    path.symlink_to(tmp_path / "secret")
    assert find_blob(DIGEST, config) is None
