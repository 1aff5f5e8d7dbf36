"""`AsyncFarmClient`: the asyncio twin of `FarmClient`, over the same session and protocol."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from luna_farm.core import frames, protocol
from luna_farm.errors import FarmBusy, FarmDraining, FarmUnavailable, ProtocolError, StaleLease, Unauthorized
from luna_farm_client.endpoint import CONNECT_S, Endpoint, why_not
from luna_farm_client.farm_client import DRAINING_S, RESTART_S, STALE_TRIES, WAIT_STEP_S
from luna_farm_client.mapped import MappedSegments
from luna_farm_client.requests import JobReport, Outgoing, Receipt, SaveRequest
from luna_farm_client.session import Call, Copy, Send, Session, Steps

T = TypeVar("T")


class AsyncConnection:
    """One connection over asyncio streams, under a `Session`. For one task at a time."""

    def __init__(
        self,
        endpoint: Endpoint,
        timeout: float,
        segments: MappedSegments,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._reader, self._writer = streams
        self._calls = 0
        self.session = Session(segments)
        self.broken = False

    @classmethod
    async def open(cls, endpoint: Endpoint, timeout: float, segments: MappedSegments) -> AsyncConnection:
        """Connect and say hello. Raises FarmUnavailable, Unauthorized."""
        try:
            opening = asyncio.open_connection(endpoint.host, endpoint.port, ssl=endpoint.tls)
            streams = await asyncio.wait_for(opening, min(timeout, CONNECT_S))
        except (OSError, asyncio.TimeoutError) as error:
            raise FarmUnavailable(why_not(endpoint, error), endpoint.host, endpoint.port) from error
        connection = cls(endpoint, timeout, segments, streams)
        try:
            endpoint.check_owner(streams[1].get_extra_info("socket"))
            await connection.run(connection.session.greet(endpoint.token()))
        except BaseException:
            connection.close()
            raise
        return connection

    async def run(self, steps: Steps) -> Any:
        """Drive a generator of the session to its end and return what it returns."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, Call):
                    step = steps.send(await self.call(step))
                elif isinstance(step, Send):
                    self._say(step.message)
                    step = next(steps)
                else:
                    step = await self._work(step, steps)
        except StopIteration as stop:
            return stop.value

    async def _work(self, fill: Copy, steps: Steps) -> Call | Send | Copy:
        try:
            done = await asyncio.to_thread(fill.work)
        except asyncio.CancelledError:
            self.broken = True  # the thread goes on writing into the slot: nobody may lease it meanwhile
            raise
        except Exception as error:
            return steps.throw(error)
        return steps.send(done)

    async def call(self, call: Call, timeout: float | None = None) -> dict[str, Any]:
        """Send one message, return its answer. Raises what the answer tells, and FarmUnavailable when none
        comes."""
        self._say(call.message, call.payload, again=call.told)
        try:
            receiving = self._receive()
            answer = await asyncio.wait_for(receiving, self._timeout if timeout is None else timeout)
        except (OSError, ProtocolError, EOFError, asyncio.TimeoutError) as error:
            text = f"The farm at {self._endpoint} does not answer ({error})."
            raise FarmUnavailable(text, self._endpoint.host, self._endpoint.port) from error
        self.broken = "id" not in answer  # a refusal of the whole connection: the farm closes it
        protocol.check(answer)
        return answer

    def _say(
        self, message: dict[str, Any], payload: Sequence[memoryview] = (), *, again: bool = False
    ) -> None:
        """Send a message under the next id, or `again` under the last one."""
        self._calls += not again
        self.broken = True  # until the answer is here: whatever interrupts us leaves it to nobody
        self._writer.write(frames.encode({**message, "id": self._calls}))
        for data in payload:
            self._writer.write(data)

    async def _receive(self) -> dict[str, Any]:
        await self._writer.drain()
        while True:
            header = await self._reader.readexactly(frames.HEADER.size)
            length = frames.check_length(frames.HEADER.unpack(header)[0], frames.FRAME_LIMIT)
            answer = frames.decode(await self._reader.readexactly(length))
            if answer.get("id", self._calls) == self._calls:  # another is to a submit that was taken back
                return answer

    def close(self) -> None:
        """Close, and give back what was leased ahead: the farm would let it rest, for this process lives."""
        release_message = None if self.broken else self.session.release_message()
        if release_message is not None:
            self._writer.write(frames.encode(release_message))
        self.broken = True
        self._writer.close()


class AsyncFarmClient:
    """As `FarmClient`, with coroutines. For one event loop of one process; any number of tasks may use it at
    once."""

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        token: str | None = None,
        timeout: float = 30.0,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.endpoint = Endpoint.find(host, port, token, tls)
        self._timeout = timeout
        self._segments = MappedSegments()
        self._idle: list[AsyncConnection] = []
        self._was_there = False

    async def __aenter__(self) -> AsyncFarmClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def submit(self, request: SaveRequest, *, when_busy: str = "wait") -> Receipt:
        """As `FarmClient.submit`; large images are copied in a thread."""
        out = Outgoing(request)
        deadline = time.monotonic() + (self._timeout if when_busy == "wait" else 0.0)
        stale = 0
        while True:
            try:
                receipt: Receipt = await self._with_connection(lambda c: c.run(c.session.submit(out)))
                return receipt
            except (FarmBusy, FarmDraining) as later:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
                await asyncio.sleep(min(getattr(later, "retry_after_s", DRAINING_S), left))
            except StaleLease:
                stale += 1
                if stale >= STALE_TRIES:
                    raise

    async def wait(self, job_id: str, timeout: float | None = None) -> JobReport:
        """As `FarmClient.wait`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = (
                WAIT_STEP_S if deadline is None else max(0.0, min(WAIT_STEP_S, deadline - time.monotonic()))
            )
            report = JobReport.from_answer(await self.call("wait", job_id=job_id, timeout=left))
            if report.finished or (deadline is not None and time.monotonic() >= deadline):
                return report

    async def job(self, job_id: str) -> JobReport:
        """As `FarmClient.job`."""
        return JobReport.from_answer(await self.call("job", job_id=job_id))

    async def jobs(self, limit: int = 100) -> list[JobReport]:
        """As `FarmClient.jobs`."""
        return [JobReport.from_answer(job) for job in (await self.call("jobs", limit=limit))["jobs"]]

    async def cancel(self, job_id: str) -> JobReport:
        """As `FarmClient.cancel`."""
        return JobReport.from_answer(await self.call("cancel", job_id=job_id))

    async def retry(self, job_id: str) -> JobReport:
        """As `FarmClient.retry`."""
        return JobReport.from_answer(await self.call("retry", job_id=job_id))

    async def status(self) -> dict[str, Any]:
        """As `FarmClient.status`."""
        status = await self.call("status")
        status.pop("id", None)
        return status

    async def call(self, cmd: str, **fields: Any) -> dict[str, Any]:
        """Send any command of docs/protocol.md and return its answer."""
        timeout = self._timeout + fields["timeout"] if "timeout" in fields else None
        message = {"cmd": cmd, **fields}
        return await self._with_connection(lambda c: c.call(Call(message), timeout))

    def close(self) -> None:
        """Close the connections and let go of the farm's memory."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        self._segments.close()

    async def _with_connection(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        give_up = 0.0
        pause = 0.01
        while True:
            try:
                async with self._borrowed() as connection:
                    return await work(connection)
            except (FarmUnavailable, Unauthorized):
                give_up = give_up or time.monotonic() + min(RESTART_S, self._timeout)
                if not self._was_there or time.monotonic() + pause > give_up:
                    raise
            await asyncio.sleep(pause)
            pause = min(0.25, pause * 2)

    @asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[AsyncConnection]:
        if self._idle:
            connection = self._idle.pop()
        else:
            connection = await AsyncConnection.open(self.endpoint, self._timeout, self._segments)
            self._was_there = True
        try:
            yield connection
        finally:
            if connection.broken:
                connection.close()
            else:
                self._idle.append(connection)
