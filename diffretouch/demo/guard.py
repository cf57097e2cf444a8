"""Who may talk to the page: its own address alone, and with the key where other computers can reach it."""

import asyncio
import hmac
import ipaddress
import socket
from collections.abc import Iterable
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
        key (`str`, *optional*): what visitors must know; asked for once, then kept in a cookie.
    """

    def __init__(
        self, app: "ASGIApp", *, host: str = "127.0.0.1", names: Iterable[str] = (), key: str | None = None
    ) -> None:
        self.app, self._key = app, key
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
        if origin is not None and (urlsplit(origin).netloc != host or not host):
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
        given = [bearer] if kind.lower() == "bearer" else []
        given += [value for name, value in Request(scope).cookies.items() if name == self._cookie(scope)]
        return any(self._is_key(one) for one in given)

    def _is_key(self, given):
        return hmac.compare_digest(given.strip().encode(), self._key.encode())

    @staticmethod
    def _cookie(scope):
        return f"diffretouch-{(scope.get('server') or ('', 0))[1]}"  # cookies do not tell ports apart

    async def _let_in(self, request):
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > 4096:
                break
        if not self._is_key(parse_qs(body.decode("utf-8", "replace")).get("key", [""])[0]):
            await asyncio.sleep(1)  # guessing takes long
            return HTMLResponse(_ASK.format("That was not the key."), 401)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._cookie(request.scope), self._key, httponly=True, samesite="strict")
        return answer


def _name_of(url):
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""
