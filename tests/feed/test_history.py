"""The bounded history: what it gives back, and that it stays bounded."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luna_farm.feed.history import MAX_UNREAD, History, Published


def filled(count: int, **bounds: int) -> History:
    history = History(**bounds)
    for number in range(1, count + 1):
        history.add(b"%04d" % number)
    return history


def test_numbers_rise_by_one_from_one() -> None:
    history = History()
    assert (history.last, history.oldest) == (0, 1)
    assert [history.add(b"a"), history.add(b"b")] == [1, 2]
    assert (history.last, history.oldest) == (2, 1)


def test_what_follows_an_event_comes_whole() -> None:
    replayed = filled(5).after(2)
    assert replayed.frames == (b"0003", b"0004", b"0005")
    assert (replayed.first, replayed.last, replayed.complete) == (3, 5, True)


def test_nothing_follows_the_newest() -> None:
    replayed = filled(5).after(5)
    assert (replayed.frames, replayed.first, replayed.complete) == ((), 6, True)


def test_forgotten_events_are_admitted() -> None:
    replayed = filled(5, max_events=2).after(1)
    assert (replayed.frames, replayed.first, replayed.complete) == ((b"0004", b"0005"), 4, False)


@pytest.mark.parametrize("seq", [6, 10**9, -1])
def test_a_number_of_another_farm_gets_everything(seq: int) -> None:
    replayed = filled(5).after(seq)
    assert (len(replayed.frames), replayed.first, replayed.complete) == (5, 1, False)


def test_a_frame_above_the_bound_is_counted_but_not_held() -> None:
    history = filled(3, max_bytes=12)
    assert history.add(b"x" * 13) == 4
    assert (history.oldest, history.nbytes) == (5, 0)
    assert history.after(3).complete is False


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 40), max_size=60), st.integers(1, 20), st.integers(1, 200), st.integers(-2, 70)
)
def test_bounds_hold_and_frames_are_the_last_ones(
    sizes: list[int], events: int, total: int, after: int
) -> None:
    history = History(events, total)
    frames = [b"x" * size for size in sizes]
    for frame in frames:
        history.add(frame)
    replayed = history.after(after)
    held = history.last - history.oldest + 1
    assert held <= events
    assert history.nbytes == sum(map(len, frames[len(frames) - held :])) <= total
    assert replayed.frames == tuple(frames[replayed.first - 1 :])
    assert replayed.complete == (0 <= after <= len(sizes) and replayed.first == after + 1)


def test_what_nobody_was_there_for_becomes_frames_when_somebody_comes() -> None:
    history = filled(2)
    for _ in range(2):
        history.later(0.0, {})
    assert (history.last, history.oldest) == (4, 1)
    history.catch_up(lambda event: b"%04d" % event.seq)
    assert history.after(1).frames == (b"0002", b"0003", b"0004")


def test_a_long_time_alone_leaves_the_latest_events_without_a_gap() -> None:
    history = filled(3)
    for _ in range(MAX_UNREAD + 5):
        history.later(0.0, {})
    history.catch_up(lambda event: b"x")
    assert (history.last, history.oldest) == (MAX_UNREAD + 8, 9)
    assert history.after(3).complete is False
    assert history.after(8).complete is True


def test_an_event_that_is_not_json_takes_only_what_lies_before_it() -> None:
    history = filled(1)
    for _ in range(3):
        history.later(0.0, {})

    def encode(event: Published) -> bytes:
        if event.seq == 3:
            raise TypeError("not JSON")
        return b"fine"

    history.catch_up(encode)
    assert (history.last, history.oldest, history.after(0).frames) == (4, 4, (b"fine",))
