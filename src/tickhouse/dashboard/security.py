"""Keeps the page to this machine: Host, Origin, methods, and the headers of every answer.

A browser that was lured to a foreign page can still reach 127.0.0.1. It cannot forge `Host` (so DNS
rebinding fails) nor hide `Origin` (so a foreign page opens no WebSocket). Nothing here changes
state, so only GET and HEAD are answered at all.
"""

from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
POLICY_VIOLATION: Final = 1008

CHART_STYLE_HASH: Final = "'sha256-3pRED1tOXas1FXFoPb9TGCjmYe9XQsmO9OV23khV2nY='"
"""Of the one style element that the vendored chart library writes for its attribution logo."""

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        f"style-src 'self' {CHART_STYLE_HASH}",
        "img-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    )
)

HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class LocalGuard:
    """ASGI middleware that answers this machine's own pages only.

    Args:
        app: what answers a request that passed.
        port: the port that `Host` and `Origin` have to name.
    """

    def __init__(self, app: ASGIApp, *, port: int) -> None:
        self.app = app
        self._hosts = frozenset(f"{name}:{port}" for name in LOCAL_NAMES)
        self._origins = frozenset(f"http://{host}" for host in self._hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with the headers set."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if scope["type"] == "websocket":
            if refusal is None:
                await self.app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        if refusal is None:
            await self.app(scope, receive, send_with_headers)
        else:
            status, reason = refusal
            response = JSONResponse({"error": reason}, status_code=status)
            await response(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        if headers.get("host", "").lower() not in self._hosts:
            return 421, "this server answers its own local addresses only"
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in self._origins:
            return 403, "requests from other origins are refused"
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
            return 405, "only GET and HEAD are answered"
        return None
