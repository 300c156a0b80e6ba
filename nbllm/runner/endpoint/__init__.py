"""An engine that is another server's: any that speaks OpenAI's API.

engine       implements engine.interface.Engine
job          one request: what was asked, what has come of it
caller       one server: addresses, key, retries, errors
unreachable  why there is no connection
slots        who may ask now
loop         the thread in which all of it runs
origin       what an engine is made of, for another process
"""

from __future__ import annotations

from nbllm.runner.endpoint.engine import EndpointEngine
from nbllm.runner.endpoint.origin import Origin

__all__ = ["EndpointEngine", "Origin"]
