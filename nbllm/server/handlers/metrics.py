"""`GET /metrics` of `jupyter nbllm`; a notebook server has Jupyter's own, with the same counters in it."""

from __future__ import annotations

from jupyter_server.auth.decorator import allow_unauthenticated
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from nbllm.server.handlers.base import OpenAIHandler


class MetricsHandler(OpenAIHandler):
    """For Prometheus, with the rights that a list of the models needs: the names of models are in it."""

    route = "metrics"
    _track_activity = False

    @allow_unauthenticated
    def get(self) -> None:
        self.finish(generate_latest(), set_content_type=CONTENT_TYPE_LATEST)
