"""The network that the cloud's clients see: a proxy that knows a few hosts and refuses all others.

Clients come by ``HTTPS_PROXY`` and ask with CONNECT. A host that is routed leads to a port on
loopback; any other, and any request that is no CONNECT, is refused and kept in ``refused``.
"""

import asyncio
import fnmatch
import ssl
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_PIECE = 256 << 10


@dataclass
class _Route:
    """Where the connections to a host go, and how they fare on the way."""

    pattern: str
    port: int
    latency: float = 0.0
    offline: bool = False


class Network:
    """A CONNECT proxy on 127.0.0.1, on a thread of its own while it is entered.

    Args:
        tls: the servers' context; with it the network ends TLS for servers that speak plain HTTP.
        inside: another network, for the cloud's own traffic, that is given the same routes; what
            befalls this one does not befall it.

    Attributes:
        port: where the proxy listens.
        connected: host and port of every tunnel that was opened, in order.
        refused: the first line of every request that was not let through.
    """

    def __init__(self, tls: ssl.SSLContext, inside: "Network | None" = None) -> None:
        self.port = 0
        self.connected: list[str] = []
        self.refused: list[str] = []
        self._tls, self._inside = tls, inside
        self._routes: list[_Route] = []
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)

    def __enter__(self) -> "Network":
        self._thread.start()
        self.port = self._run(self._listen(self._serve))
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """The proxy's address, for ``HTTPS_PROXY``."""
        return f"http://127.0.0.1:{self.port}"

    # ---- what leads where, and how it fares ------------------------------------------

    def route(self, pattern: str, port: int, *, plain: bool = False) -> None:
        """Lead hosts to a port on loopback; a later route goes before an earlier one.

        Args:
            pattern: the host's name, with ``*`` for any part of it.
            port: the server's port on 127.0.0.1.
            plain: the server speaks HTTP without TLS; the network then ends TLS before it.
        """
        if self._inside is not None:
            self._inside.route(pattern, port, plain=plain)
        if plain:
            behind = _Route(pattern, port)

            async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await self._tunnel(reader, writer, behind, "relay")

            port = self._run(self._listen(relay, tls=self._tls))
        self._routes.insert(0, _Route(pattern, port))

    def unroute(self, pattern: str) -> None:
        """Take back the latest route with this pattern and break its connections."""
        if self._inside is not None:
            self._inside.unroute(pattern)
        for route in self._routes:
            if route.pattern == pattern:
                self._routes.remove(route)
                break
        self.sever(pattern)

    def latency(self, host: str, seconds: float) -> None:
        """Let each round trip to a host take so much longer, for connections old and new."""
        self._find(host).latency = seconds

    def sever(self, pattern: str = "*") -> None:
        """Break the connections that are open to hosts now."""

        async def cancel() -> None:
            tasks = [task for task, host in self._tasks.items() if fnmatch.fnmatch(host, pattern)]
            await _end(tasks)

        self._run(cancel())

    @contextmanager
    def offline(self, pattern: str = "*") -> Iterator[None]:
        """Lose hosts for the length of a ``with`` block: all connections break, none is opened."""
        routes = [route for route in self._routes if _meet(route.pattern, pattern)]
        for route in routes:
            route.offline = True
        self.sever(pattern)
        try:
            yield
        finally:
            for route in routes:
                route.offline = False

    def _find(self, host: str) -> _Route:
        for route in self._routes:
            if fnmatch.fnmatch(host, route.pattern) or host == route.pattern:
                return route
        raise ValueError(f"no route to {host}: it is one of {[r.pattern for r in self._routes]}")

    # ---- on the network's thread -----------------------------------------------------

    def _run(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _listen(self, serve: Any, tls: ssl.SSLContext | None = None) -> int:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls, limit=_PIECE)
        self._servers.append(server)
        return server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        await _end(list(self._tasks))
        await asyncio.sleep(0)  # their transports close at the loop's next turn

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client of the proxy."""
        try:
            with self._counted("a client that has not asked"):
                head = await reader.readuntil(b"\r\n\r\n")
        except (
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            asyncio.CancelledError,
            OSError,
        ):
            writer.transport.abort()
            return
        line = head.split(b"\r\n", 1)[0].decode("latin1")
        method, _, rest = line.partition(" ")
        host = rest.split(" ")[0].rpartition(":")[0]
        route = next((r for r in self._routes if fnmatch.fnmatch(host, r.pattern)), None)
        if method != "CONNECT" or route is None or route.offline:
            if route is None or method != "CONNECT":
                self.refused.append(line)
            writer.write(b"HTTP/1.1 502 No route to host\r\nContent-Length: 0\r\n\r\n")
            with self._counted("a client that was refused"), suppress(asyncio.CancelledError):
                await _hang_up(writer)
            writer.transport.abort()
            return
        self.connected.append(rest.split(" ")[0])
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await self._tunnel(reader, writer, route, host)

    @contextmanager
    def _counted(self, host: str) -> Iterator[None]:
        """Count the current task among those that are ended when connections are."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = host
        try:
            yield
        finally:
            del self._tasks[task]

    async def _tunnel(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, route: _Route, host: str
    ) -> None:
        """Carry bytes both ways until one side ends."""
        there: asyncio.StreamWriter | None = None
        try:
            with self._counted(host):
                back, there = await asyncio.open_connection("127.0.0.1", route.port, limit=_PIECE)
                out = asyncio.create_task(_carry_late(reader, there, route))
                home = asyncio.create_task(_carry(back, writer))
                try:
                    await asyncio.wait((out, home), return_when=asyncio.FIRST_COMPLETED)
                    if home.done():
                        await _hang_up(writer)
                finally:
                    out.cancel()
                    home.cancel()
                    await asyncio.gather(out, home, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # A server's task that ends as cancelled is reported as an error by Python 3.11.
        finally:
            for end in (writer, there):
                if end is not None:
                    end.transport.abort()


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(_PIECE):
            sink.write(data)
            await sink.drain()


async def _carry_late(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, route: _Route
) -> None:
    """Carry bytes, each piece as late as the route is slow; pieces may be under way together."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

    async def take() -> None:
        with suppress(OSError):
            while data := await source.read(_PIECE):
                await pieces.put((loop.time() + route.latency, data))
        await pieces.put((loop.time() + route.latency, b""))

    taking = asyncio.create_task(take())
    try:
        with suppress(OSError):
            while True:
                due, data = await pieces.get()
                if not data:
                    return
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                sink.write(data)
                await sink.drain()
    finally:
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncio.TimeoutError, ssl.SSLError):
        writer.close()
        await asyncio.wait_for(writer.wait_closed(), 2)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tunnels, and return when their sockets are closed."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0.01)  # Transports that were aborted close in the loop's next turns.


def _meet(pattern: str, other: str) -> bool:
    return fnmatch.fnmatch(pattern, other) or fnmatch.fnmatch(other, pattern)
