"""Docker's multiplexed stream, cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.frames import HEAD, LARGEST, FrameDecoder, FrameError, frame


@given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=40)), max_size=6), st.integers(1, 17))
def test_frames_come_out_as_they_went_in_wherever_the_stream_is_cut(frames: list[tuple[int, bytes]], size: int) -> None:
    whole = b"".join(frame(*one) for one in frames)
    decoder = FrameDecoder()
    assert [f for at in range(0, len(whole), size) for f in decoder.feed(whole[at : at + size])] == frames


@given(st.binary(max_size=64))
def test_any_bytes_are_frames_or_an_error(data: bytes) -> None:
    try:
        found = b"".join(HEAD.pack(stream, len(payload)) + payload for stream, payload in FrameDecoder().feed(data))
    except FrameError:
        return
    assert len(found) <= len(data)


def test_a_frame_larger_than_any_is_refused_before_it_is_waited_for() -> None:
    with pytest.raises(FrameError, match="at most"):
        list(FrameDecoder().feed(HEAD.pack(1, LARGEST + 1)))
