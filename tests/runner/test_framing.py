from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.runner.errors import ProtocolError
from nbllm.runner.framing import MAX_FRAME_BYTES, FrameReader, framed


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 9), max_size=200))
def test_payloads_come_whole_however_the_bytes_are_cut(payloads: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(framed, payloads))
    reader, found = FrameReader(), []
    for cut in [*cuts, len(data)]:
        found += reader.push(data[:cut])
        data = data[cut:]
    assert found == payloads


def test_other_protocol_is_refused_before_anything_is_kept() -> None:
    with pytest.raises(ProtocolError, match="not nbllm's protocol"):
        FrameReader().push(b"GET / HTTP/1.1\r\n")


def test_payload_too_large_for_the_other_side_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="too large"):
        framed(bytes(MAX_FRAME_BYTES + 1))
