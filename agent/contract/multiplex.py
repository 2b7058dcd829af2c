"""Many streams of bytes over one connection: HTTP/2, whose client may be the side that was dialled.

What comes for a stream counts as received once it was read, so that a slow reader holds up its own stream alone; the
connection's window is given back at once. Either side sends a PING every BEAT_S, and takes a connection on which nothing comes
for LOST_BEATS of them for lost. Source: RFC 9113.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from agent.contract.takeover import HangUp

WINDOW, FRAME, CHUNK = 1 << 20, 1 << 17, 1 << 17
STREAMS = 1000
"""Streams at the same time."""
UNREAD = 16 << 20
"""Bytes of answers to frames that the other side may leave unread."""
BEAT_S, LOST_BEATS = 2.0, 3
HEAD = ((b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"agent"), (b":path", b"/"))


class Channel:
    """One stream: bytes both ways, of which each direction ends by itself."""

    def __init__(self, connection: Multiplexer, number: int) -> None:
        self._connection, self._number = connection, number
        self._chunks: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._broken = False
        self._read = 0
        self.ended = False
        """Whether the other side said that no more bytes come."""
        self.room = asyncio.Event()
        """Set when more may be written."""

    def feed(self, data: bytes) -> None:
        """Some bytes came."""
        self._chunks.append(data)
        self._arrived.set()

    def feed_end(self) -> None:
        """No more bytes come."""
        self.ended = True
        self._arrived.set()

    def feed_break(self) -> None:
        """The other side, or the connection, is gone."""
        self._broken = True
        self._arrived.set()
        self.room.set()

    async def read(self) -> bytes:
        """The next bytes, b"" at their end. Raises ConnectionResetError."""
        while not self._chunks:
            if self.ended:  # one that said all may be gone by now
                return b""
            if self._broken:
                raise ConnectionResetError("the stream was broken off")
            self._arrived.clear()
            await self._arrived.wait()
        data = self._chunks.popleft()
        self._read += len(data)
        if self._read >= WINDOW // 4:
            self._connection.give_back(self._number, self._read)
            self._read = 0
        return data

    async def write(self, data: bytes) -> None:
        """Send *data* as the windows allow. Raises ConnectionResetError."""
        view = memoryview(data)
        while view:
            if self._broken:
                raise ConnectionResetError("the stream was broken off")
            sent = await self._connection.send(self._number, view)
            if not sent:
                self.room.clear()
                await self.room.wait()
            view = view[sent:]

    async def end(self) -> None:
        """Say that no more bytes come. Raises ConnectionResetError."""
        await self._connection.end(self._number)

    def reset(self) -> None:
        """Break it off."""
        self.feed_break()
        self._connection.reset(self._number)


Accept = Callable[[Channel], Awaitable[None]]


class Multiplexer:
    """One end of a connection. With *accept* it answers, which is awaited for each stream; without, it opens them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, accept: Accept | None = None) -> None:
        self._reader, self._writer, self._accept = reader, writer, accept
        client = accept is None
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=client, header_encoding=None))
        self._channels: dict[int, Channel] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self._quiet = 0
        self._spoken = False
        self.lost = asyncio.Event()
        """Set when the connection is over."""
        codes = h2.settings.SettingCodes
        settings = {codes.INITIAL_WINDOW_SIZE: WINDOW, codes.MAX_FRAME_SIZE: FRAME, codes.MAX_CONCURRENT_STREAMS: STREAMS}
        self._h2.local_settings = h2.settings.Settings(
            client=client, initial_values=settings | ({codes.ENABLE_PUSH: 0} if client else {})
        )
        self._h2.max_inbound_frame_size = FRAME
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(16 * WINDOW)

    async def run(self) -> str:
        """Speak until the connection ends; returns why it did."""
        beating = asyncio.create_task(self._beat(), name="beat of a link")
        why = "the other side closed the connection"
        try:
            self._push()
            while data := await self._reader.read(CHUNK):
                events = self._h2.receive_data(data)
                self._spoken = self._spoken or bool(events)
                if self._spoken:  # of a slow line, parts of a frame count too; of one that never spoke HTTP/2, nothing does
                    self._quiet = 0
                for event in events:
                    self._event(event)
                self._push()
        except (h2.exceptions.H2Error, OSError, ValueError) as error:
            why = str(error) or type(error).__name__
        finally:
            if self._quiet > LOST_BEATS:
                why = f"nothing came for {BEAT_S * LOST_BEATS:g} s"
            self.lost.set()
            beating.cancel()
            for channel in list(self._channels.values()):
                channel.feed_break()
            for task in self._serving:
                task.cancel()
            self.abort()
            await asyncio.gather(beating, *self._serving, return_exceptions=True)
        return why

    async def _beat(self) -> None:
        while True:
            # counted, not timed: a process that was stopped itself gives the other side its time
            await asyncio.sleep(BEAT_S)
            self._quiet += 1
            if self._quiet > LOST_BEATS:
                return self.abort()
            with contextlib.suppress(h2.exceptions.H2Error, ConnectionError):
                self._h2.ping(b"pystack\0")
                self._push()

    def abort(self) -> None:
        """End the connection at once."""
        self._writer.transport.abort()

    async def open(self) -> Channel:
        """A new stream. Raises ConnectionResetError."""
        if self.lost.is_set():
            raise ConnectionResetError("the connection is over")
        try:
            number = self._h2.get_next_available_stream_id()
            self._h2.send_headers(number, HEAD)
        except h2.exceptions.H2Error as error:
            raise ConnectionResetError(str(error)) from None
        channel = self._channels[number] = Channel(self, number)
        await self._flush()
        return channel

    # --- of channels -----------------------------------------------------------------------------------------------

    def give_back(self, number: int, count: int) -> None:
        """*count* bytes of the stream *number* were read."""
        with contextlib.suppress(h2.exceptions.H2Error, KeyError, ConnectionError):
            self._h2.increment_flow_control_window(count, number)
            self._push()

    async def send(self, number: int, view: memoryview) -> int:
        """Send as much of *view* as may be sent; returns how much that was. Raises ConnectionResetError."""
        try:
            room = min(len(view), self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)
            if room <= 0:
                return 0
            self._h2.send_data(number, bytes(view[:room]))
        except (h2.exceptions.H2Error, KeyError) as error:
            raise ConnectionResetError(str(error)) from None
        await self._flush()
        return room

    async def end(self, number: int) -> None:
        """End our direction of the stream *number*. Raises ConnectionResetError."""
        try:
            self._h2.end_stream(number)
        except (h2.exceptions.H2Error, KeyError) as error:
            raise ConnectionResetError(str(error)) from None
        await self._flush()

    def reset(self, number: int) -> None:
        """Break the stream *number* off."""
        self._channels.pop(number, None)
        with contextlib.suppress(h2.exceptions.H2Error, KeyError, ConnectionError):
            self._h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
            self._push()

    def _push(self) -> None:
        """Write what answers frames that came: a reader must not wait for a writer, both ends would.

        Raises ConnectionResetError where the other side only sends."""
        if data := self._h2.data_to_send():
            self._writer.write(data)
        if self._writer.transport.get_write_buffer_size() > UNREAD:
            raise ConnectionResetError("the other side reads nothing")

    async def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._writer.write(data)
        try:
            await self._writer.drain()
        except OSError as error:
            raise ConnectionResetError(str(error)) from None

    # --- what comes in -----------------------------------------------------------------------------------------------

    def _event(self, event: h2.events.Event) -> None:
        number = getattr(event, "stream_id", None) or 0
        channel = self._channels.get(number)
        match event:
            case h2.events.RequestReceived() if self._accept:
                with contextlib.suppress(h2.exceptions.H2Error):  # it was broken off by what came with it: that event follows
                    self._h2.send_headers(number, [(b":status", b"200")])
                channel = self._channels[number] = Channel(self, number)
                task = asyncio.create_task(self._serve(self._accept, channel), name=f"stream {number} of a link")
                self._serving.add(task)
                task.add_done_callback(self._serving.discard)
            case h2.events.DataReceived():
                if size := event.flow_controlled_length or 0:
                    self._h2.increment_flow_control_window(size)
                if channel and event.data:
                    channel.feed(event.data)
            case h2.events.StreamEnded() if channel:
                channel.feed_end()
            case h2.events.StreamReset() if channel:
                channel.feed_break()
                del self._channels[number]
            case h2.events.WindowUpdated():
                for one in [channel] if channel else self._channels.values():
                    one.room.set()
            case h2.events.RemoteSettingsChanged():
                for one in self._channels.values():
                    one.room.set()

    async def _serve(self, accept: Accept, channel: Channel) -> None:
        try:
            await accept(channel)
        except OSError:
            channel.reset()

    def forget(self, channel: Channel) -> None:
        """*channel* is over on both sides."""
        for number in [n for n, c in self._channels.items() if c is channel]:
            del self._channels[number]


async def relay(connection: Multiplexer, channel: Channel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes between *channel* and a socket of this host until both directions have ended, or either side is gone."""

    async def inward() -> None:
        while data := await channel.read():
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def outward() -> None:
        try:
            while data := await reader.read(CHUNK):
                await channel.write(data)
            await channel.end()
        except ConnectionResetError:
            if not channel.ended:
                raise
            return  # the other side has said all and is gone: what it said is still on its way to the socket
        # one that has ended its input may go on to read; one that is gone never will
        hangups.append(HangUp(writer.get_extra_info("socket"), channel.reset))

    hangups: list[HangUp] = []
    works = [asyncio.create_task(inward()), asyncio.create_task(outward())]
    try:
        await asyncio.gather(*works)
        connection.forget(channel)
        writer.close()
    except OSError:
        channel.reset()
        writer.transport.abort()
    finally:
        for work in works:
            work.cancel()
        for one in hangups:
            one.cancel()
        if writer.transport and not writer.transport.is_closing():
            channel.reset()
            writer.transport.abort()
