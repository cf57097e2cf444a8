"""Who may talk to the page: its own address alone, and with the key where other computers can reach it."""

import asyncio
import hmac
import ipaddress
import secrets
import socket
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

# Nothing is loaded from elsewhere, nothing inline is run, and no other page may show this one in a frame
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_ASK = """<!doctype html><html lang="en"><meta charset="utf-8"><title>diffretouch</title>
<meta name="viewport" content="width=device-width"><h1>diffretouch</h1><p>{}</p>
<form method="post" action="/key"><label>Key <input type="password" name="key" autofocus></label>
<button>Open</button></form></html>
"""


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this computer alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware that answers requests of strangers itself: 403, or 401 where the key is missing.

    A web page that a visitor has open elsewhere may send requests to this computer, and may call it by a name of its
    own (DNS rebinding): `Host` must be an address or a known name, `Origin`, where a browser names one, the same.

    Args:
        app: what is guarded.
        host (`str`): where the server listens.
        names (list of `str`): further names that `Host` may say.
        key (`str`, *optional*): what visitors must know; asked for once, then a cookie lets them in while the page is.

    Raises:
        ValueError: a key of fewer than 8 characters.
    """

    def __init__(
        self, app: "ASGIApp", *, host: str = "127.0.0.1", names: Iterable[str] = (), key: str | None = None
    ) -> None:
        check_key(key)
        self.app, self._key, self._ticket = app, key, secrets.token_urlsafe(24)
        self._local = is_loopback(host)
        self._names = {"localhost", host.lower(), *(name.lower() for name in names)}
        if not self._local:
            own = socket.gethostname().lower()
            self._names |= {own, f"{own}.local", socket.getfqdn().lower()}

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store" if scope["path"].startswith("/api") else "no-cache")
            await send(message)

        headers = Headers(scope=scope)
        refusal = self._refusal(headers, scope["path"])
        if refusal:
            answer = JSONResponse({"error": refusal}, 403)
        elif self._key is not None and scope["path"] == "/key" and scope["method"] == "POST":
            answer = await self._let_in(Request(scope, receive))
        elif self._key is not None and not self._knows_key(headers, scope):
            if scope["path"] in ("/", "/index.html"):
                answer = HTMLResponse(_ASK.format("This page needs its key: the terminal that runs it shows it."), 401)
            else:
                answer = JSONResponse({"error": "The key is missing: `Authorization: Bearer KEY`."}, 401)
        else:
            answer = self.app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, headers, path):
        host = headers.get("host", "")
        if not self._is_own_name(_name_of(f"//{host}")):
            return f"This page is not reached by the name {host!r}."
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return f"Pages of {origin!r} may not use this one."
        if path.startswith("/api") and headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return "Other pages may not use this one."
        return None

    def _is_own_name(self, name):
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._local  # a name can be rebound, an address cannot

    def _knows_key(self, headers, scope):
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        ticket = Request(scope).cookies.get(self._cookie(scope), "")
        return kind.lower() == "bearer" and self._is_key(bearer) or _are_same(ticket, self._ticket)

    def _is_key(self, given):
        return _are_same(given.strip(), self._key.strip())

    @staticmethod
    def _cookie(scope):
        return f"diffretouch-{(scope.get('server') or ('', 0))[1]}"  # cookies do not tell ports apart

    async def _let_in(self, request):
        body = b""
        try:
            async for part in parts_of(request, 10):
                body += part
                if len(body) > 4096:
                    break
        except TooSlow as error:
            return JSONResponse({"error": str(error)}, 408)
        if not self._is_key(parse_qs(body.decode("utf-8", "replace")).get("key", [""])[0]):
            await asyncio.sleep(1)  # guessing takes long
            return HTMLResponse(_ASK.format("That was not the key."), 401)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._cookie(request.scope), self._ticket, httponly=True, samesite="strict")
        return answer


class TooSlow(ValueError):
    """A body did not come."""


async def parts_of(request: Request, seconds: float = 60.0) -> AsyncIterator[bytes]:
    """The parts of a body, as they come.

    Raises:
        TooSlow: nothing came for so many seconds.
    """
    parts = aiter(request.stream())
    while True:
        try:
            yield await asyncio.wait_for(anext(parts), seconds)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise TooSlow(f"Nothing came for {seconds:g} seconds.") from None


def check_key(key: str | None) -> None:
    """Raises ValueError for a key that can be guessed: it may be tried as often as one likes."""
    if key is not None and len(key.strip()) < 8:
        raise ValueError(f"`key` must have at least 8 characters, got {len(key.strip())}.")


def _are_same(given, wanted):
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode("utf-8", "replace"))


def _name_of(url):
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""
