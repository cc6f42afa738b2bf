"""Bodies on their way: who has a place, and who gives way to whom."""

import asyncio

import pytest

from ipt.page.requests import RequestError
from pipelines.serving import senders as module
from pipelines.serving.senders import Senders


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch):
    monkeypatch.setattr(module, "SECONDS_OF_GRACE", 0.05)


async def send(senders: Senders, address: str, received: int = 0, seconds: float = 0.1) -> int:
    """The status in which a sender ends that has `received` bytes at once and then nothing."""
    try:
        async with senders.place(address) as sender:
            sender.came(received)
            await asyncio.sleep(seconds)
    except RequestError as refusal:
        return refusal.status
    return 200


def test_one_client_cannot_take_the_places_of_others():
    async def all_of_it() -> list[int]:
        senders = Senders(3)
        slow = [asyncio.ensure_future(send(senders, "10.0.0.1", received)) for received in (5, 1, 3)]
        await asyncio.sleep(0)
        return [await send(senders, "10.0.0.2", seconds=0), await send(senders, "10.0.0.1")] + [
            await one for one in slow
        ]

    # The slowest of the crowd gives way at once; after that there is room for one more of its own.
    assert asyncio.run(all_of_it()) == [200, 200, 200, 408, 200]


def test_a_client_that_is_alone_waits_for_its_own_grace():
    async def all_of_it() -> list[int]:
        senders = Senders(2)
        slow = [asyncio.ensure_future(send(senders, "10.0.0.1", received, 0.2)) for received in (2, 1)]
        await asyncio.sleep(0)
        early = await send(senders, "10.0.0.1", seconds=0)
        await asyncio.sleep(0.1)
        late = await send(senders, "10.0.0.1", seconds=0)
        assert len(senders) == 1
        return [early, late] + [await one for one in slow]

    assert asyncio.run(all_of_it()) == [429, 200, 200, 408]


def test_many_clients_with_one_sender_each_give_way_after_their_grace():
    async def all_of_it() -> list[int]:
        senders = Senders(2)
        slow = [asyncio.ensure_future(send(senders, f"10.0.0.{number}", number, 0.2)) for number in (1, 2)]
        await asyncio.sleep(0)
        early = await send(senders, "10.0.0.9", seconds=0)
        await asyncio.sleep(0.1)
        return [early, await send(senders, "10.0.0.9", seconds=0)] + [await one for one in slow]

    assert asyncio.run(all_of_it()) == [429, 200, 408, 200]


@pytest.mark.parametrize(
    ("first", "next_one", "statuses"),
    [
        ("2001:db8::1", "2001:db8::2", [200, 408]),  # its own gives way, though the other one is slower
        ("::ffff:192.0.2.7", "192.0.2.7", [200, 408]),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.8", [408, 200]),
    ],
)
def test_a_network_of_ipv6_is_one_client_and_ipv4_behind_it_is_not(first, next_one, statuses):
    async def all_of_it() -> list[int]:
        senders = Senders(2)
        other = asyncio.ensure_future(send(senders, "192.0.2.1", 0, 0.2))
        own = asyncio.ensure_future(send(senders, first, 9, 0.2))
        await asyncio.sleep(0.1)
        await send(senders, next_one, seconds=0)
        return [await other, await own]

    assert asyncio.run(all_of_it()) == statuses
