"""Who was let in: a link works once and not for long, and a bounded number of sessions is known."""

from __future__ import annotations

from luna_farm.feed.sessions import LINK_S, MAX_LINKS, MAX_SESSIONS, Sessions


class Clock:
    now = 100.0


def sessions() -> tuple[Sessions, Clock]:
    clock = Clock()
    return Sessions(lambda: clock.now), clock


def test_a_link_opens_one_session() -> None:
    at, _ = sessions()
    link = at.link()
    session = at.follow(link)
    assert at.knows(session)
    assert at.follow(link) == ""
    assert not at.knows(link)


def test_a_link_that_is_too_old_opens_none_and_is_gone() -> None:
    at, clock = sessions()
    link = at.link()
    clock.now += LINK_S
    assert at.follow(link) == ""
    clock.now = 100.0
    assert at.follow(link) == ""


def test_what_is_not_known_opens_nothing() -> None:
    at, _ = sessions()
    for given in ("", "x", "\ud800", at.open()):
        assert at.follow(given) == ""
    assert not at.knows("")


def test_the_oldest_gives_way() -> None:
    at, _ = sessions()
    links = [at.link() for _ in range(MAX_LINKS + 1)]
    assert [at.follow(link) != "" for link in links] == [False] + [True] * MAX_LINKS
    opened = [at.open() for _ in range(MAX_SESSIONS + 1)]
    assert [at.knows(session) for session in opened] == [False] + [True] * MAX_SESSIONS
