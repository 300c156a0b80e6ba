from tests.loaded import smollm2

__all__ = ["smollm2"]
