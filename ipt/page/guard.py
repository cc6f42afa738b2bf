"""Who may ask a service that stands on a person's own computer, and what its answers allow a browser to do."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ipt.page.answers import refused
from ipt.page.requests import RequestError

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


class Guard:
    """An application whose answers carry HEADERS, and that answers 403 to other sites.

    A browser sends along for which host it asks and whose page asks. A host that is neither an address, nor localhost,
    nor one of `names`, is a name that somebody else has pointed here (DNS rebinding); an origin that is not the host is
    another site's page. Programs that are no browsers send no origin and are served. With `names` None any host is
    ours, as behind a proxy that knows them.
    """

    def __init__(self, app: ASGIApp, names: Collection[str] | None = ()) -> None:
        self._app = app
        self._names = None if names is None else {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        from starlette.datastructures import Headers, MutableHeaders

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self.check(Headers(scope=scope))
        except RequestError as refusal:
            await refused(refusal)(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)

    def check(self, headers: Headers) -> None:
        """Raise a RequestError of 403 for a host that is not ours and for another site's origin."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_ours(_hostname(host)):
            raise RequestError(403, f"Host: '{host}' is not a name of this service; ask for it by its address")
        if origin is not None and _origins_host(origin) != host.lower():
            raise RequestError(403, f"Origin: pages of '{origin}' may not use this service")
        elsewhere = origin is None and headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if elsewhere and headers.get("sec-fetch-mode") != "navigate":  # a link to the page is welcome
            raise RequestError(403, "Sec-Fetch-Site: pages of other sites may not use this service")

    def _is_ours(self, name: str) -> bool:
        if self._names is None or name in self._names or name == "localhost":
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _hostname(host: str) -> str:
    """The host of a Host header without its port and brackets, in lower case; "" where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _origins_host(origin: str) -> str | None:
    """Host and port of an Origin header, in lower case; None where it is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
