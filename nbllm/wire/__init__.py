"""The shapes of other programs' APIs and their framing: bytes and JSON to core values, and back.

Pure: no socket, no file, no clock, no web framework. Nothing that comes in raises anything but an InvalidRequestError.
"""
