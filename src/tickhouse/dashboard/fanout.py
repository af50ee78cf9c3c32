"""Sends frames to viewers: encoded once, a short queue each, and no waiting for a slow one.

A viewer whose queue is full loses its backlog and gets `resync` instead: it asks for the state
anew, which is both cheaper and truer than an old queue played to its end.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Final

QUEUE_MAX: Final = 16
CLIENTS_MAX: Final = 256
CHANNELS_A_CLIENT_MAX: Final = 32


class Client:
    """One viewer's queue. All methods are for the event loop's thread."""

    def __init__(self) -> None:
        self.channels: set[str] = set()
        self._queue: list[str] = []
        self._ready = asyncio.Event()
        self.resyncs = 0

    def put(self, frame: str) -> None:
        """Queue a frame; on a full queue drop the backlog and ask for a resync instead."""
        if len(self._queue) >= QUEUE_MAX:
            self._queue.clear()
            self.resyncs += 1
            self._queue.append(RESYNC_SLOW)
        self._queue.append(frame)
        self._ready.set()

    async def take(self) -> str:
        """Wait for a frame and take the oldest one off the queue."""
        while not self._queue:
            self._ready.clear()
            await self._ready.wait()
        return self._queue.pop(0)


RESYNC_SLOW: Final = '{"op":"resync","reason":"slow"}'


class Fanout:
    """Who listens to which channel.

    Args:
        on_join: called on every subscription, so that the newcomer gets the state.
        on_last: called when a channel loses its last listener.
    """

    def __init__(self, *, on_join: Callable[[str], None], on_last: Callable[[str], None]) -> None:
        self._listeners: defaultdict[str, set[Client]] = defaultdict(set)
        self._on_join = on_join
        self._on_last = on_last
        self.clients: set[Client] = set()

    def connect(self) -> Client | None:
        """A new viewer, or None where there are too many."""
        if len(self.clients) >= CLIENTS_MAX:
            return None
        client = Client()
        self.clients.add(client)
        return client

    def disconnect(self, client: Client) -> None:
        """Forget a viewer."""
        for channel in list(client.channels):
            self.unsubscribe(client, channel)
        self.clients.discard(client)

    def subscribe(self, client: Client, channel: str) -> bool:
        """Listen to a channel; False where the viewer listens to too many already."""
        if channel not in client.channels and len(client.channels) >= CHANNELS_A_CLIENT_MAX:
            return False
        client.channels.add(channel)
        self._listeners[channel].add(client)
        self._on_join(channel)
        return True

    def unsubscribe(self, client: Client, channel: str) -> None:
        """Listen no longer."""
        if channel not in client.channels:
            return
        client.channels.discard(channel)
        listeners = self._listeners[channel]
        listeners.discard(client)
        if not listeners:
            del self._listeners[channel]
            self._on_last(channel)

    def send(self, channel: str, frame: bytes) -> None:
        """Queue one encoded frame for every listener of a channel; "" is every viewer."""
        listeners = self._listeners.get(channel) if channel else self.clients
        if listeners:
            text = frame.decode()
            for client in listeners:
                client.put(text)

    def has_listeners(self, channel: str) -> bool:
        """Whether anyone listens to a channel."""
        return channel in self._listeners
