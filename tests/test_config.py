from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbllm.config import Config, load_config
from nbllm.errors import ParameterError


@pytest.fixture(autouse=True)
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("NBLLM_")]:
        monkeypatch.delenv(variable)
    import platformdirs

    monkeypatch.delenv("JUPYTER_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(platformdirs, "site_config_path", lambda name: tmp_path / "site" / name)
    monkeypatch.setattr(platformdirs, "user_config_path", lambda name: tmp_path / "config" / name)
    monkeypatch.setattr(platformdirs, "user_data_path", lambda name: tmp_path / "data" / name)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "config" / "nbllm" / "config.toml"
    path.parent.mkdir(parents=True)
    return path


def test_load_config_defaults(tmp_path: Path) -> None:
    assert load_config() == Config(
        models_dir=tmp_path / "data" / "nbllm" / "models",
        models_dirs=(),
        foreign_stores=("ollama", "huggingface", "lmstudio", "gpt4all"),
        default_model="smollm2",
        memory_fraction=0.75,
        prefix_store_bytes=None,
        threads=None,
        cores_file=None,
        runtime_dir=tmp_path / "data" / "jupyter" / "runtime" / "nbllm",
        share_kernels=True,
        context_length=None,
        max_sequences=8,
        max_loaded_models=2,
        keep_alive="5m",  # type: ignore[arg-type]
        max_queue=256,
        load_timeout=120,
        keys_file=tmp_path / "config" / "nbllm" / "keys.json",
        chats_dir=tmp_path / "data" / "nbllm" / "chats",
        allow_origins=(
            "http://localhost:*",
            "https://localhost:*",
            "http://127.0.0.1:*",
            "https://127.0.0.1:*",
            "http://[::1]:*",
            "https://[::1]:*",
        ),
        aliases={},
        endpoints={},
    )


def test_load_config_runtime_dir_is_in_jupyters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", "/run/jupyter")

    assert load_config().runtime_dir == Path("/run/jupyter/nbllm")


@pytest.mark.parametrize(
    ("variable", "text", "field", "expected"),
    [
        ("NBLLM_MODELS_DIR", "/srv/models", "models_dir", Path("/srv/models")),
        ("NBLLM_MODELS_DIR", "~/models", "models_dir", Path.home() / "models"),
        ("NBLLM_DEFAULT_MODEL", "qwen3", "default_model", "qwen3"),
        ("NBLLM_MEMORY_FRACTION", "0.5", "memory_fraction", 0.5),
        ("NBLLM_MEMORY_FRACTION", "1", "memory_fraction", 1.0),
        ("NBLLM_PREFIX_STORE_BYTES", "0", "prefix_store_bytes", 0),
        ("NBLLM_THREADS", " 3 ", "threads", 3),
        ("NBLLM_CORES_FILE", "/run/cores", "cores_file", Path("/run/cores")),
        ("NBLLM_THREADS", "", "threads", None),
        ("NBLLM_MODELS_DIRS", f"/a{os.pathsep}{os.pathsep}~/b", "models_dirs", (Path("/a"), Path.home() / "b")),
        ("NBLLM_FOREIGN_STORES", "gpt4all, ollama,gpt4all", "foreign_stores", ("gpt4all", "ollama")),
        ("NBLLM_FOREIGN_STORES", " none ", "foreign_stores", ()),
        ("NBLLM_RUNTIME_DIR", "/run/nbllm", "runtime_dir", Path("/run/nbllm")),
        ("NBLLM_SHARE_KERNELS", "off", "share_kernels", False),
        ("NBLLM_SHARE_KERNELS", "True", "share_kernels", True),
        ("NBLLM_CONTEXT_LENGTH", "4096", "context_length", 4096),
        ("NBLLM_MAX_SEQUENCES", "2", "max_sequences", 2),
        ("NBLLM_MAX_LOADED_MODELS", "0", "max_loaded_models", 0),
        ("NBLLM_KEEP_ALIVE", "1h30m", "keep_alive", 5400.0),
        ("NBLLM_KEEP_ALIVE", "90", "keep_alive", 90.0),
        ("NBLLM_KEEP_ALIVE", "-1", "keep_alive", -1.0),
        ("NBLLM_MAX_QUEUE", "1", "max_queue", 1),
        ("NBLLM_LOAD_TIMEOUT", "2.5", "load_timeout", 2.5),
        ("NBLLM_KEYS_FILE", "/etc/keys.json", "keys_file", Path("/etc/keys.json")),
        ("NBLLM_CHATS_DIR", "~/chats", "chats_dir", Path.home() / "chats"),
        (
            "NBLLM_ALLOW_ORIGINS",
            "https://a.example, http://[::1]:*",
            "allow_origins",
            ("https://a.example", "http://[::1]:*"),
        ),
    ],
)
def test_load_config_environment(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, expected: object
) -> None:
    monkeypatch.setenv(variable, text)

    assert getattr(load_config(), field) == expected


def test_load_config_file(config_file: Path) -> None:
    config_file.write_text('models_dir = "mine"\nmemory_fraction = 1\nthreads = 2\ncores_file = "/run/cores"\n')

    config = load_config()

    assert (config.models_dir, config.memory_fraction, config.threads, config.cores_file) == (
        config_file.parent / "mine",
        1.0,
        2,
        Path("/run/cores"),
    )


def test_load_config_environment_wins_over_the_file(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config_file.write_text('threads = 2\ndefault_model = "a"\n')
    monkeypatch.setenv("NBLLM_THREADS", "4")

    config = load_config()

    assert (config.threads, config.default_model) == (4, "a")


def test_load_config_reads_afresh(config_file: Path) -> None:
    config_file.write_text("threads = 2\n")
    assert load_config().threads == 2
    config_file.write_text("threads = 3\n")
    assert load_config().threads == 3


def test_load_config_other_file(tmp_path: Path, config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config_file.write_text("threads = 2\n")
    other = tmp_path / "other.toml"
    other.write_text("threads = 7\n")
    monkeypatch.setenv("NBLLM_CONFIG", str(other))

    assert load_config().threads == 7


def test_load_config_named_file_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBLLM_CONFIG", str(tmp_path / "none.toml"))

    with pytest.raises(ParameterError, match=r"^NBLLM_CONFIG: there is no file .*none\.toml"):
        load_config()


@pytest.mark.parametrize(
    ("variable", "text", "allowed"),
    [
        ("NBLLM_MEMORY_FRACTION", "0", "above 0 and at most 1, not 0.0"),
        ("NBLLM_MEMORY_FRACTION", "1.1", "above 0 and at most 1"),
        ("NBLLM_MEMORY_FRACTION", "nan", "above 0 and at most 1"),
        ("NBLLM_MEMORY_FRACTION", "75%", "above 0 and at most 1, not '75%'"),
        ("NBLLM_PREFIX_STORE_BYTES", "-1", "a whole number of 0 or more"),
        ("NBLLM_PREFIX_STORE_BYTES", "1GB", "a whole number of 0 or more, not '1GB'"),
        ("NBLLM_THREADS", "0", "a whole number of 1 or more"),
        ("NBLLM_THREADS", "1.5", "a whole number of 1 or more, not '1.5'"),
        ("NBLLM_DEFAULT_MODEL", "  ", "a model's name or path"),
        ("NBLLM_MODELS_DIR", "~nobody-of-that-name/x", "home folder"),
        ("NBLLM_SHARE_KERNELS", "maybe", "true or false, not 'maybe'"),
        ("NBLLM_MAX_SEQUENCES", "0", "a whole number of 1 or more"),
        ("NBLLM_MAX_QUEUE", "many", "a whole number of 1 or more, not 'many'"),
        ("NBLLM_KEEP_ALIVE", "5 minutes", "seconds or a text such as"),
        ("NBLLM_LOAD_TIMEOUT", "nan", "a number of seconds above 0"),
        ("NBLLM_LOAD_TIMEOUT", "0", "a number of seconds above 0"),
        ("NBLLM_ALLOW_ORIGINS", "localhost", "'localhost' is not an origin"),
        ("NBLLM_ALLOW_ORIGINS", "http://a/path", "is not an origin"),
        ("NBLLM_FOREIGN_STORES", "olama", "'olama' is none of ollama, huggingface, lmstudio, gpt4all"),
        ("NBLLM_FOREIGN_STORES", "none,ollama", "'none' is none of ollama"),
        ("NBLLM_ALIASES", "a=b", "is no setting: write a table [aliases] into"),
    ],
)
def test_load_config_bad_environment_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, allowed: str
) -> None:
    monkeypatch.setenv(variable, text)

    with pytest.raises(ParameterError) as raised:
        load_config()

    assert str(raised.value).startswith(f"{variable}: ")
    assert allowed in str(raised.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("thread = 2", r"thread in .*config\.toml: is not an option; did you mean threads\?"),
        ("zzz = 2", "zzz in .*: is not an option; the options are aliases, allow_origins, "),
        ("threads = 2.0", r"threads in .*config\.toml: must be a whole number"),
        ("threads = true", "must be a whole number"),
        ('memory_fraction = "much"', "memory_fraction in .*: must be a number above 0"),
        ("memory_fraction = true", "must be a number above 0"),
        ("memory_fraction = inf", "must be a number above 0"),
        ("models_dir = 5", "models_dir in .*: must be a path"),
        ('models_dir = ""', "models_dir in .*: must be a path"),
        ('models_dir = "a\\u0000b"', "models_dir in .*: must be a path"),
        ("default_model = []", "default_model in .*: must be a model's name"),
        ("models_dirs = 'a'", r"models_dirs in .*config\.toml: must be a list of paths"),
        ("models_dirs = ['a', 5]", "models_dirs in .*: must be a path, not 5"),
        ("foreign_stores = 'ollama'", "foreign_stores in .*: must be a list of names"),
        ("foreign_stores = [['ollama']]", r"\['ollama'\] is none of ollama"),
        ("share_kernels = 1", "share_kernels in .*: must be true or false, not 1"),
        ("allow_origins = 'http://a'", "must be a list of origins"),
        ("allow_origins = [5]", "5 is not an origin"),
        ("max_sequences = []", "max_sequences in .*: must be a whole number"),
        ("keep_alive = true", "keep_alive in .*: must be seconds or a text"),
        ("threads = ", r"config\.toml: is not TOML: "),
        ("x = " + "[" * 5000, "is not TOML"),
    ],
)
def test_load_config_bad_file_names_file_and_key(config_file: Path, content: str, expected: str) -> None:
    config_file.write_text(content)

    with pytest.raises(ParameterError, match=expected) as raised:
        load_config()

    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\0", None], ids=["not-utf8", "folder"])
def test_load_config_unreadable_file(config_file: Path, content: bytes | None) -> None:
    if content is None:
        config_file.mkdir()
    else:
        config_file.write_bytes(content)

    with pytest.raises(ParameterError, match=r"config\.toml: (is not TOML|cannot be read)"):
        load_config()


def test_config_names_the_field() -> None:
    with pytest.raises(ParameterError, match=r"^threads: must be a whole number of 1 or more, not '2'"):
        Config(threads="2")  # type: ignore[arg-type]


def test_config_takes_paths_as_text() -> None:
    assert Config(models_dir="~/models").models_dir == Path.home() / "models"  # type: ignore[arg-type]
