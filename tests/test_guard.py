"""Who may talk to the page, asked of the guard itself; `test_demo` asks a real server."""

import asyncio
from urllib.parse import urlencode

import pytest

pytest.importorskip("starlette", reason="starlette is not installed")

from starlette.requests import Request  # noqa: E402
from starlette.responses import PlainTextResponse  # noqa: E402

from diffretouch.demo.guard import Guard, TooSlow, check_key, is_loopback, parts_of  # noqa: E402

KEY = "a key: of 日本 letters"


def ask(guard, path="/", body=None, **headers):
    """One request -> status, headers."""
    sent = []
    raw = [(name.replace("_", "-").lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET" if body is None else "POST", "path": path, "query_string": b"",
             "headers": raw, "server": ("127.0.0.1", 7860), "scheme": "http"}  # fmt: skip

    async def receive():
        return {"type": "http.request", "body": body or b"", "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


@pytest.mark.parametrize("origin", ["http://[", "http://127.0.0.1:7860@evil.example", "file://127.0.0.1:7860",
                                    "http://127.0.0.1:7860.", "", "null", "http://localhost:7860"])  # fmt: skip
def test_origins_that_are_not_its_own_are_refused(origin):
    guard = Guard(PlainTextResponse("in"))
    assert ask(guard, Host="127.0.0.1:7860", Origin=origin)[0] == 403
    assert ask(guard, Host="127.0.0.1:7860", Origin="http://127.0.0.1:7860")[0] == 200


def test_the_cookie_is_no_key_and_the_key_may_be_any_text():
    guard, own = Guard(PlainTextResponse("in"), host="0.0.0.0", key=KEY), {"Host": "192.0.2.7:7860"}
    status, headers = ask(guard, "/key", urlencode({"key": KEY}).encode(), **own)
    cookie = headers["set-cookie"].split(";")[0]
    assert status == 303 and KEY not in headers["set-cookie"]
    assert ask(guard, Cookie=cookie, **own)[0] == 200
    assert ask(guard, "/key", b"key=" + b"x" * 5000, **own)[0] == 401
    for said in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer "}, {"Cookie": "diffretouch-7860="},
                 {"Cookie": cookie.replace("7860", "7861")}, {"Authorization": cookie.partition("=")[2]},
                 {"Authorization": "Bearer \xff\xfe"}):  # fmt: skip
        assert ask(guard, **own, **said)[0] == 401
    plain = Guard(PlainTextResponse("in"), host="0.0.0.0", key="12345678")
    assert ask(plain, Authorization="Bearer 12345678", **own)[0] == 200
    assert ask(plain, Authorization="Bearer 12345678", Cookie=cookie, Host="evil.example")[0] == 403


@pytest.mark.parametrize("key", ["", " ", "short", "1234567 "])
def test_keys_that_can_be_guessed_are_refused(key):
    for make in (check_key, lambda key: Guard(PlainTextResponse("in"), key=key)):
        with pytest.raises(ValueError, match="`key` must have at least 8 characters"):
            make(key)


def test_a_body_that_does_not_come_is_given_up():
    async def never():
        await asyncio.Event().wait()

    async def read():
        return [part async for part in parts_of(Request({"type": "http"}, never), 0.01)]

    with pytest.raises(TooSlow, match=r"Nothing came for 0.01 seconds"):
        asyncio.run(read())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.9.1", "0.0.0.0", "::", "192.0.2.7", "me"])
def test_what_only_this_computer_reaches(host):
    assert is_loopback(host) == (host in ("127.0.0.1", "::1", "localhost", "127.8.9.1"))
