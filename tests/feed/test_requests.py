"""What a subscriber may say: understood or refused with the field's name, nothing in between."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luna_farm.errors import InvalidRequest
from luna_farm.feed import requests


def test_the_three_requests() -> None:
    assert requests.parse('{"type": "get_status"}') == requests.GetStatus()
    assert requests.parse('{"type": "resume", "after": 7}') == requests.Resume(7, "")
    assert requests.parse('{"type": "resume", "after": 0, "epoch": "ab"}') == requests.Resume(0, "ab")
    act = '{"type": "action", "name": "retry", "job_id": "j", "token": "t", "id": "1"}'
    assert requests.parse(act) == requests.Act("retry", "j", "t", "1")
    one = '{"type": "action", "name": "cancel", "job_id": "j", "index": 2, "token": "t"}'
    assert requests.parse(one) == requests.Act("cancel", "j", "t", "", 2)
    pause = '{"type": "action", "name": "pause", "token": "t"}'
    assert requests.parse(pause) == requests.Act("pause", "", "t", "")


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (b'{"type": "get_status"}', "message"),
        ("no json", "message"),
        ("[]", "message"),
        ("[" * 5000, "message"),
        ('{"type": "stats"}', "type"),
        ('{"type": ["get_status"]}', "type"),
        ('{"type": "resume"}', "after"),
        ('{"type": "resume", "after": true}', "after"),
        ('{"type": "resume", "after": -1}', "after"),
        ('{"type": "resume", "after": 1.0}', "after"),
        ('{"type": "resume", "after": 9007199254740992}', "after"),
        ('{"type": "resume", "after": 1, "epoch": 3}', "epoch"),
        ('{"type": "action", "name": "shutdown", "job_id": "j", "token": "t"}', "name"),
        ('{"type": "action", "name": "retry", "token": "t"}', "job_id"),
        ('{"type": "action", "name": "retry", "job_id": "j"}', "token"),
        ('{"type": "action", "name": "retry", "job_id": "j", "index": -1, "token": "t"}', "index"),
        ('{"type": "action", "name": "retry", "job_id": "j", "index": true, "token": "t"}', "index"),
        (json.dumps({"type": "action", "name": "retry", "job_id": "j" * 257, "token": "t"}), "job_id"),
    ],
)
def test_anything_else_is_refused_by_name(message: str | bytes, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        requests.parse(message)
    assert refused.value.field == field


def test_a_token_is_never_shown() -> None:
    message = json.dumps({"type": "action", "name": "retry", "job_id": "j", "token": "secret" * 60})
    with pytest.raises(InvalidRequest) as refused:
        requests.parse(message)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "٣", "1" * 17, " 1"])
def test_a_sequence_number_of_a_query_is_digits(text: str) -> None:
    with pytest.raises(InvalidRequest):
        requests.sequence(text)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(["type", "after", "epoch", "name", "job_id", "token", "id"])
words = st.sampled_from(["get_status", "resume", "action", "retry", "cancel"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(keys, anything | words, max_size=7) | anything)
def test_strangers_get_a_request_or_an_error(value: object) -> None:
    try:
        parsed = requests.parse(json.dumps(value))
    except InvalidRequest:
        return
    assert isinstance(parsed, requests.GetStatus | requests.Resume | requests.Act)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60) | st.binary(max_size=60))
def test_noise_is_refused(value: str | bytes) -> None:
    with pytest.raises(InvalidRequest):
        requests.parse(value)
