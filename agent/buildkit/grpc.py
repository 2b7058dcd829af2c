"""gRPC over one connection that is there already, from either end of it.

Docker's clients take an HTTP/1 connection over and go on in HTTP/2: over `/grpc` they call us, over `/session` we call them.
What is received counts as received when it was read, so that a fast sender waits. Source: grpc/grpc, doc/PROTOCOL-HTTP2.md;
RFC 9113.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar
from urllib.parse import quote, unquote

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from agent.buildkit import wire
from agent.contract.printable import shown
from agent.errors import AgentError, user_message

log = logging.getLogger(__name__)
OK, CANCELLED, UNKNOWN, INVALID, NOT_FOUND, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 0, 1, 2, 3, 5, 12, 13, 14
LARGEST = 16 << 20
"""Bytes of one message."""
WINDOW, FRAME = 4 << 20, 1 << 18
STREAMS = 256
"""Calls at the same time over one connection."""
CHUNK, UNREAD = 1 << 18, 64 << 20
M = TypeVar("M", bound=wire.Message)
Metadata = Sequence[tuple[str, str]]


class CallError(AgentError):
    """A call that ended with the status *grpc*."""

    def __init__(self, grpc: int, message: str) -> None:
        super().__init__(message)
        self.grpc = grpc


class Carrier(Protocol):
    """What carries the bytes: a connection that was taken over."""

    reader: asyncio.StreamReader
    transport: asyncio.Transport

    async def send(self, data: bytes) -> None:
        """Raises ConnectionError."""


class Stream:
    """One call, as either end has it: messages go both ways until each side ends its own."""

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection, self.number = connection, number
        self.headers: dict[str, list[str]] = {}
        self._bytes, self._owed = bytearray(), 0
        self._arrived = asyncio.Event()
        self._ended = False
        self._error: CallError | None = None
        self.room = asyncio.Event()

    # --- what the connection says ----------------------------------------------------------------------------------

    def fed(self, data: bytes, owed: int) -> None:
        """Some bytes came; *owed* of the window are theirs."""
        self._bytes += data
        self._owed += owed
        self._arrived.set()

    def closed(self, error: CallError | None) -> None:
        """Nothing more comes: the other side has said all, or the call failed."""
        self._error = self._error or error
        self._ended = True
        self._arrived.set()
        if error:
            self.room.set()

    @property
    def failed(self) -> CallError | None:
        """Why the call is over, where it failed."""
        return self._error

    # --- what a caller does ------------------------------------------------------------------------------------------

    async def receive(self, kind: type[M]) -> M | None:
        """The next message; None after the last one. Raises CallError, BadRequestError."""
        head = await self._exactly(5)
        if head is None:
            return None
        compressed, size = struct.unpack(">BI", head)
        if compressed:
            raise CallError(UNIMPLEMENTED, "a message is compressed, which nobody asked for")
        if size > LARGEST:
            raise CallError(8, f"a message of {size} bytes is too large: at most {LARGEST}")
        body = await self._exactly(size)
        if body is None:
            raise CallError(INTERNAL, "a message is cut off")
        return wire.decode(body, kind)

    async def _exactly(self, count: int) -> bytes | None:
        while len(self._bytes) < count:
            if self._ended:
                if self._error:
                    raise self._error
                if self._bytes:
                    raise CallError(INTERNAL, "a message is cut off")
                return None
            self._arrived.clear()
            self._repay()
            await self._arrived.wait()
        data = bytes(self._bytes[:count])
        del self._bytes[:count]
        if self._owed > WINDOW // 4:
            self._repay()
        return data

    def release(self) -> None:
        """What came is not read any more."""
        self._bytes.clear()
        self._repay()

    def _repay(self) -> None:
        if self._owed:
            self.connection.acknowledge(self._owed, self.number)
            self._owed = 0

    async def messages(self, kind: type[M]) -> AsyncIterator[M]:
        """All messages that still come."""
        while (message := await self.receive(kind)) is not None:
            yield message

    async def send(self, message: wire.Message) -> None:
        """Raises CallError where the call is over."""
        body = wire.encode(message)
        await self.connection.send_data(self, struct.pack(">BI", 0, len(body)) + body)

    async def end(self) -> None:
        """Nothing more is sent by who called."""
        await self.connection.end(self)

    async def cancel(self) -> None:
        """Give the call up; the other side gets a reset."""
        await self.connection.reset(self)


Handler = Callable[[Stream], Awaitable[None]]


class Connection:
    """One end. A *client* only calls; who is none answers calls by *handlers*, which are named by their paths."""

    def __init__(self, taken: Carrier, *, client: bool, handlers: Mapping[str, Handler] | None = None) -> None:
        self._taken, self._client, self._handlers = taken, client, handlers or {}
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=client, header_encoding=None))
        self._streams: dict[int, Stream] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Lock()
        self.lost = asyncio.Event()
        """Set when the connection is over."""
        self._introduce()

    def _introduce(self) -> None:
        """What is to be sent before anything else."""
        settings = {
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
            h2.settings.SettingCodes.MAX_FRAME_SIZE: FRAME,
            h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
            h2.settings.SettingCodes.ENABLE_PUSH: 0,
        }
        if not self._client:
            del settings[h2.settings.SettingCodes.ENABLE_PUSH]
        self._h2.local_settings = h2.settings.Settings(client=self._client, initial_values=settings)
        self._h2.max_inbound_frame_size = FRAME
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(4 * WINDOW)

    async def run(self) -> None:
        """Speak until the connection ends."""
        try:
            await self._flush()
            while data := await self._taken.reader.read(CHUNK):
                for event in self._h2.receive_data(data):
                    self._event(event)
                self._push()
        except (h2.exceptions.ProtocolError, ConnectionError, ValueError) as error:
            log.info("a connection of BuildKit's ended: %s", shown(str(error)))
            with contextlib.suppress(ConnectionError):
                await self._flush()
        finally:
            self.lost.set()
            for stream in list(self._streams.values()):
                stream.closed(CallError(UNAVAILABLE, "the client went away"))
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)

    async def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(h2.exceptions.ProtocolError, ConnectionError):
            self._h2.close_connection()
            await self._flush()
        self._taken.transport.close()

    # --- calls -------------------------------------------------------------------------------------------------------

    async def call(self, path: str, metadata: Metadata = ()) -> Stream:
        """Begin the call *path*, `/package.Service/Method`. Raises CallError."""
        if self.lost.is_set():
            raise CallError(UNAVAILABLE, "the client went away")
        number = self._h2.get_next_available_stream_id()
        stream = self._streams[number] = Stream(self, number)
        head = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *metadata,
        ]
        self._h2.send_headers(number, [(k.encode(), v.encode("utf-8", "surrogateescape")) for k, v in head])
        await self._flush()
        return stream

    async def ask(self, path: str, message: wire.Message, kind: type[M], metadata: Metadata = ()) -> M:
        """A call with one message each way. Raises CallError."""
        stream = await self.call(path, metadata)
        await stream.send(message)
        await stream.end()
        answer = await stream.receive(kind)
        if answer is None or await stream.receive(kind) is not None:
            raise CallError(INTERNAL, f"{path} was to be answered with one message")
        return answer

    # --- what streams do ---------------------------------------------------------------------------------------------

    def acknowledge(self, count: int, number: int) -> None:
        """*count* bytes of the stream *number* were read."""
        with contextlib.suppress(h2.exceptions.ProtocolError, KeyError):
            self._h2.acknowledge_received_data(count, number)
        with contextlib.suppress(ConnectionError):  # the reading loop sees it
            self._push()

    async def send_data(self, stream: Stream, data: bytes) -> None:
        """Send *data* as the windows allow. Raises CallError."""
        view = memoryview(data)
        while view:
            if stream.failed:
                raise stream.failed
            try:
                room = min(self._h2.local_flow_control_window(stream.number), self._h2.max_outbound_frame_size)
                if room <= 0:
                    stream.room.clear()
                    await stream.room.wait()
                    continue
                self._h2.send_data(stream.number, bytes(view[:room]))
            except (h2.exceptions.ProtocolError, KeyError) as error:
                raise stream.failed or CallError(UNAVAILABLE, str(error)) from None
            view = view[room:]
            await self._flush()

    async def end(self, stream: Stream) -> None:
        """Send the end of *stream*; of one that is answered, the status is the end."""
        if not self._client:
            return
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self._h2.end_stream(stream.number)
        await self._flush()

    async def reset(self, stream: Stream) -> None:
        """Break *stream* off."""
        stream.release()
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self._h2.reset_stream(stream.number, h2.errors.ErrorCodes.CANCEL)
        self._streams.pop(stream.number, None)
        with contextlib.suppress(CallError):
            await self._flush()

    def _push(self) -> None:
        """Write what answers frames that came. A reader must not wait for a writer: both ends would.

        Raises ConnectionError where the other side only sends."""
        self._taken.transport.write(self._h2.data_to_send())
        if self._taken.transport.get_write_buffer_size() > UNREAD:
            raise ConnectionError("the other side reads nothing")

    async def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data:
            try:
                await self._taken.send(data)
            except ConnectionError:
                raise CallError(UNAVAILABLE, "the client went away") from None

    # --- what comes in -----------------------------------------------------------------------------------------------

    def _event(self, event: h2.events.Event) -> None:
        number = getattr(event, "stream_id", None) or 0
        stream = self._streams.get(number)
        match event:
            case h2.events.RequestReceived():
                self._served(number, _headers(event.headers))
            case h2.events.ResponseReceived() | h2.events.TrailersReceived() if stream:
                _read_headers(stream, _headers(event.headers))
            case h2.events.DataReceived():
                owed = event.flow_controlled_length or 0
                if stream:
                    stream.fed(event.data or b"", owed)
                else:
                    self._h2.acknowledge_received_data(owed, number)
            case h2.events.StreamEnded() if stream:
                missing = self._client and not stream.failed and "grpc-status" not in stream.headers
                stream.closed(CallError(UNKNOWN, "the call ended without a status") if missing else None)
                if self._client:
                    self._streams.pop(number, None)
            case h2.events.StreamReset() if stream:
                stream.closed(CallError(CANCELLED, "the call was broken off"))
                self._streams.pop(number, None)
            case h2.events.WindowUpdated():
                for one in [stream] if stream else self._streams.values():
                    one.room.set()
            case h2.events.RemoteSettingsChanged():
                for one in self._streams.values():
                    one.room.set()

    # --- answering ---------------------------------------------------------------------------------------------------

    def _served(self, number: int, headers: dict[str, list[str]]) -> None:
        stream = self._streams[number] = Stream(self, number)
        stream.headers = headers
        task = asyncio.create_task(self._serve(stream), name=f"call {headers.get(':path', ['?'])[0][:80]}")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, stream: Stream) -> None:
        path = stream.headers.get(":path", [""])[0]
        code, message = OK, ""
        watch = asyncio.create_task(self._given_up(stream, asyncio.current_task()))
        try:
            self._h2.send_headers(stream.number, [(b":status", b"200"), (b"content-type", b"application/grpc")])
            handler = self._handlers.get(path)
            if handler is None:
                raise CallError(UNIMPLEMENTED, f"unknown service or method {path}")
            await handler(stream)
        except asyncio.CancelledError:
            code, message = CANCELLED, "context canceled"
        except CallError as error:
            code, message = error.grpc, str(error)
        except (AgentError, OSError) as error:
            code = {400: INVALID, 404: NOT_FOUND}.get(getattr(error, "status", 500), UNKNOWN)
            message = user_message(error)
        except Exception as error:
            log.exception("%s", path)
            code, message = INTERNAL, user_message(error)
        finally:
            watch.cancel()
        with contextlib.suppress(h2.exceptions.ProtocolError, CallError, KeyError):
            trailers = [(b"grpc-status", str(code).encode())]
            if message:
                trailers.append((b"grpc-message", quote(shown(message), safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()))
            self._h2.send_headers(stream.number, trailers, end_stream=True)
            await self._flush()
        stream.release()
        self._streams.pop(stream.number, None)

    @staticmethod
    async def _given_up(stream: Stream, task: asyncio.Task[None] | None) -> None:
        """Cancel the work of a call that its client breaks off."""
        while stream.failed is None:
            stream.room.clear()
            await stream.room.wait()
        if task:
            task.cancel()


def _headers(given: Sequence[tuple[bytes, bytes]] | None) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in given or ():
        found.setdefault(bytes(name).decode("latin-1"), []).append(bytes(value).decode("utf-8", "surrogateescape"))
    return found


def _read_headers(stream: Stream, headers: dict[str, list[str]]) -> None:
    """A head or trailers of an answer."""
    stream.headers.update(headers)
    status = headers.get("grpc-status", ["0"])[0]
    if status != "0":
        code = int(status) if status.isascii() and status.isdecimal() else UNKNOWN
        stream.closed(CallError(code, unquote(headers.get("grpc-message", [""])[0])))
    elif headers.get(":status", ["200"])[0] != "200":
        stream.closed(CallError(UNAVAILABLE, f"HTTP status {headers[':status'][0]}"))
