"""Bodies on their way: a bounded number, shared between addresses, where the slow ones give way."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ipt.page.requests import RequestError

SECONDS_OF_GRACE = 1.0  # that a sender has before another one of its address may take its place
_NETWORK = 64  # bits of an address of IPv6 that say whose it is


@dataclass(eq=False)
class Sender:
    """A body on its way."""

    client: str
    since: float  # seconds of the loop's clock
    deadline: asyncio.Timeout
    received: int = 0  # bytes

    def came(self, size: int) -> None:
        """Count `size` bytes more."""
        self.received += size


class Senders:
    """Places for bodies on their way.

    Where all are taken, the slowest sender of the client that has the most of them gives way to the next one. Two that
    have as many, and one client's own senders, do so only after SECONDS_OF_GRACE: before that the next one is refused.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._senders: list[Sender] = []

    def __len__(self) -> int:
        return len(self._senders)

    @asynccontextmanager
    async def place(self, address: str) -> AsyncIterator[Sender]:
        """A place for a body from `address`; a RequestError of 429 where there is none, 408 where it is taken away."""
        clock = asyncio.get_running_loop().time
        sender = Sender(_client(address), clock(), asyncio.timeout(None))
        if len(self._senders) >= self._places:
            self._make_room(sender)
        self._senders.append(sender)
        try:
            async with sender.deadline:
                yield sender
        except TimeoutError:
            seconds = clock() - sender.since
            raise RequestError(
                408, f"body: {sender.received} bytes came in {seconds:.1f} seconds, and others wait; try again later"
            ) from None
        finally:
            if sender in self._senders:
                self._senders.remove(sender)

    def _make_room(self, newcomer: Sender) -> None:
        def seconds(sender: Sender) -> float:
            return newcomer.since - sender.since

        held = Counter(sender.client for sender in (*self._senders, newcomer))
        most = max(held.values())
        tries = [sender for sender in self._senders if held[sender.client] == most]
        old = [sender for sender in tries if seconds(sender) > SECONDS_OF_GRACE]
        if not old and (not tries or held[newcomer.client] == most):
            raise RequestError(429, f"{self._places} pictures are on their way already; try again later")
        slowest = min(old or tries, key=lambda sender: sender.received / max(seconds(sender), 1e-3))
        self._senders.remove(slowest)
        slowest.deadline.reschedule(newcomer.since)


def _client(address: str) -> str:
    """Whose address it is: of IPv6 the network, since one client has all of it."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # no network behind it, or a name
        return address
    if ip.version == 4:
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.ip_network((ip, _NETWORK), strict=False))
