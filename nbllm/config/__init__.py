"""The settings of this machine, and the one place that reads the environment (errors.py reads NBLLM_DEBUG itself).

Each setting comes from its environment variable, else from `config.toml` in the user's configuration folder
(NBLLM_CONFIG names another file), else from `config.toml` in the site's folder, which an administrator writes, else
from its default. Tables (aliases, endpoints) of both files are merged by name, and have no variable. An empty
variable counts as not set. A relative path in a file starts at the file's folder.
"""

from __future__ import annotations

from nbllm.config.endpoints import Endpoint, checked_base_url, key_in_environment
from nbllm.config.ollama import OLLAMA_PORT, ollama_host, ollama_password
from nbllm.config.settings import Config
from nbllm.config.sources import load_config

__all__ = [
    "OLLAMA_PORT",
    "Config",
    "Endpoint",
    "checked_base_url",
    "key_in_environment",
    "load_config",
    "ollama_host",
    "ollama_password",
]
