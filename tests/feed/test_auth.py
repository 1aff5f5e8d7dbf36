"""Access to the feed: the lists are exact, and what is in doubt is refused."""

from __future__ import annotations

import base64

import pytest
from websockets.datastructures import Headers

from luna_farm.feed.auth import TOKEN_SUBPROTOCOL, FeedAuth, choose_subprotocol, is_loopback
from luna_farm.feed.sessions import Sessions

SESSIONS = Sessions(lambda: 0.0)
DOOR = FeedAuth.of("127.0.0.1", ["Farm.local"], 19284, "geheim", SESSIONS, tls=False)


def headers(*pairs: tuple[str, str]) -> Headers:
    return Headers([("Host", "127.0.0.1:19284"), *pairs])


def test_the_names_of_a_farm() -> None:
    assert DOOR.hosts == {"127.0.0.1:19284", "localhost:19284", "[::1]:19284", "farm.local:19284"}
    assert "http://[::1]:19284" in DOOR.origins
    assert FeedAuth.of("0.0.0.0", [], 1, "t", SESSIONS, tls=True).origins == {
        "https://127.0.0.1:1",
        "https://localhost:1",
        "https://[::1]:1",
    }


@pytest.mark.parametrize(
    "host", ["127.0.0.1:19284", "localhost:19284", "LOCALHOST:19284", "[::1]:19284", "farm.local:19284"]
)
def test_its_own_hosts_pass(host: str) -> None:
    assert DOOR.refusal(Headers([("Host", host)])) == ""


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:19284",
        "127.0.0.1",
        "127.0.0.1:80",
        "localhost.:19284",
        "127.0.0.1:19284.evil.example",
        "",
    ],
)
def test_other_hosts_are_refused_by_name(host: str) -> None:
    assert repr(host) in DOOR.refusal(Headers([("Host", host)]))


def test_no_host_and_two_hosts_are_refused() -> None:
    assert DOOR.refusal(Headers())
    assert DOOR.refusal(headers(("Host", "127.0.0.1:19284")))


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:19284", "http://localhost:19284", "http://farm.local:19284"]
)
def test_its_own_page_passes(origin: str) -> None:
    assert DOOR.refusal(headers(("Origin", origin))) == ""


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://evil.example",
        "https://127.0.0.1:19284",
        "http://127.0.0.1",
        "http://127.0.0.1:19285",
        "file://",
    ],
)
def test_foreign_pages_are_refused(origin: str) -> None:
    assert "may not talk" in DOOR.refusal(headers(("Origin", origin)))


def test_two_origins_are_refused() -> None:
    own = ("Origin", "http://127.0.0.1:19284")
    assert DOOR.refusal(headers(own, own))


def test_a_refusal_shows_little_of_a_long_name() -> None:
    assert len(DOOR.refusal(Headers([("Host", "x" * 5000)]))) < 300


def bearer(token: str) -> Headers:
    return headers(("Authorization", f"Bearer {token}"))


def subprotocol(token: str) -> Headers:
    encoded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    return headers(("Sec-WebSocket-Protocol", f"luna-farm.v1, {TOKEN_SUBPROTOCOL}{encoded}"))


def test_the_token_comes_in_two_ways() -> None:
    assert DOOR.brings_token(bearer("geheim"))
    assert DOOR.brings_token(headers(("Authorization", "bearer  geheim ")))
    assert DOOR.brings_token(subprotocol("geheim"))
    odd = FeedAuth.of("h", [], 1, "pässe +/=", SESSIONS, tls=True)
    assert odd.brings_token(subprotocol("pässe +/="))


@pytest.mark.parametrize(
    "given",
    [bearer("falsch"), bearer(""), bearer("geheim2"), bearer("\xe9"), subprotocol("falsch"), headers()],
)
def test_a_wrong_token_is_none(given: Headers) -> None:
    assert not DOOR.brings_token(given)


@pytest.mark.parametrize("encoded", ["", "%%%", "A", "_w"])
def test_a_token_that_cannot_be_read_is_none(encoded: str) -> None:
    assert not DOOR.brings_token(headers(("Sec-WebSocket-Protocol", TOKEN_SUBPROTOCOL + encoded)))


def test_an_empty_token_lets_nobody_in() -> None:
    assert not FeedAuth.of("h", [], 1, "", SESSIONS, tls=False).knows("")


def test_only_the_feeds_own_subprotocol_is_chosen() -> None:
    assert choose_subprotocol(None, ["luna-farm.token.x", "luna-farm.v1"]) == "luna-farm.v1"  # type: ignore[arg-type, list-item]
    assert choose_subprotocol(None, ["chat"]) is None  # type: ignore[arg-type, list-item]


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        (("127.0.0.1", 1), True),
        (("127.9.9.9", 1), True),
        (("::1", 1, 0, 0), True),
        (("::ffff:127.0.0.1", 1, 0, 0), True),
        (("::ffff:10.0.0.1", 1, 0, 0), False),
        (("10.0.0.1", 1), False),
        (("fe80::1%eth0", 1, 0, 2), False),
        (("localhost", 1), False),
        ((), False),
        (None, False),
        ("/run/socket", False),
    ],
)
def test_loopback_is_told_by_address(peer: object, local: bool) -> None:
    assert is_loopback(peer) is local


def test_a_session_counts_as_the_token() -> None:
    session = SESSIONS.open()
    assert DOOR.brings_token(bearer(session))
    assert DOOR.brings_token(subprotocol(session))


def test_a_session_is_opened_by_a_link_or_the_token_and_nothing_else() -> None:
    link = SESSIONS.link()
    assert DOOR.login(headers(("Authorization", f"Bearer {link}"))) == "", "a link is no token"
    session = DOOR.login(headers(("Authorization", f"Login {link}")))
    assert DOOR.knows(session)
    assert DOOR.login(headers(("Authorization", f"Login {link}"))) == "", "it works once"
    assert DOOR.knows(DOOR.login(bearer("geheim")))
    for given in (bearer("falsch"), bearer(""), headers(), headers(("Authorization", "Login "))):
        assert DOOR.login(given) == ""
    twice = headers(("Authorization", "Bearer geheim"), ("Authorization", "Bearer geheim"))
    assert DOOR.login(twice) == ""
