"""The hello, and how an answer becomes a value or the error that it tells."""

from __future__ import annotations

import pytest

from luna_farm.core import protocol
from luna_farm.errors import FarmBusy, FarmError, InvalidRequest, ProtocolError


def test_the_hello_names_the_protocol_its_version_the_token_and_the_process() -> None:
    assert protocol.hello("secret", 42) == {
        "cmd": "hello",
        "protocol": "luna-farm",
        "version": 2,
        "token": "secret",
        "pid": 42,
    }


def test_an_answer_that_tells_no_error_is_the_answer() -> None:
    answer = {"success": True, "images": [{"error": "", "code": ""}]}
    assert protocol.check(answer) is answer
    assert protocol.check({"error": "of an image, without a code"}) == {
        "error": "of an image, without a code"
    }


def test_an_error_arrives_as_the_class_that_left_with_its_data() -> None:
    with pytest.raises(FarmBusy, match="full") as busy:
        protocol.check(protocol.refusal(FarmBusy("full", depth=9, retry_after_s=0.5)))
    assert (busy.value.depth, busy.value.retry_after_s) == (9, 0.5)
    with pytest.raises(InvalidRequest) as invalid:
        protocol.check(protocol.refusal(InvalidRequest.of("format", "gif", "png | webp")))
    assert (invalid.value.field, invalid.value.given, invalid.value.allowed) == (
        "format",
        "'gif'",
        "png | webp",
    )


def test_an_error_of_a_newer_farm_is_a_plain_one() -> None:
    with pytest.raises(FarmError, match="something new") as error:
        protocol.check({"error": "something new", "code": "of_the_future", "details": {"x": 1}})
    assert type(error.value) is FarmError


def test_an_error_without_details_is_no_answer_of_a_farm() -> None:
    with pytest.raises(ProtocolError):
        protocol.check({"error": "Not Found", "code": 404})
