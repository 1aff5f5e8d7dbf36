"""`AsyncFarmClient`: the asyncio twin of `FarmClient`, over the same session and policy."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any, TypeVar

from luna_farm.catalogue.rows import CatalogueRow
from luna_farm.core import frames, protocol
from luna_farm.errors import FarmUnavailable, ProtocolError, Unauthorized
from luna_farm_client.endpoint import CONNECT_S, Endpoint, why_not
from luna_farm_client.mapped import MappedSegments
from luna_farm_client.policy import Plan, Policy, Use
from luna_farm_client.requests import JobReport, PauseReport, Receipt, SaveRequest
from luna_farm_client.session import Session
from luna_farm_client.steps import Copy, Receive, Send, Sleep, Steps

T = TypeVar("T")
CLOSES_S = 1.0
"""How long the end of a connection may take."""


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
        self._unsent: list[bytes | memoryview] = []
        self._answers: dict[int, dict[str, Any]] = {}
        self._unanswered: set[int] = set()
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
        except Unauthorized as error:
            connection.close()
            raise endpoint.refused(error) from error
        except BaseException:
            connection.close()
            raise
        return connection

    async def run(self, steps: Steps) -> Any:
        """Drive a generator of the session to its end and return what it returns."""
        try:
            step = steps.send(None)
            while True:
                try:
                    done = await self._carry_out(step)
                except Exception as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(done)
        except StopIteration as stop:
            return stop.value

    async def _carry_out(self, step: Send | Receive | Copy | Sleep) -> Any:
        if isinstance(step, Receive):
            return await self._receive(step)
        if isinstance(step, Send):
            await self._send(step)
        elif isinstance(step, Sleep):
            await asyncio.sleep(step.seconds)
        else:
            self.broken = True  # a thread whose task is cancelled goes on writing into the slot
            return await asyncio.to_thread(step.work)
        return None

    async def _send(self, step: Send) -> None:
        self.broken = True  # until its answer is here: whatever interrupts us leaves it unread
        self._unanswered.add(step.message["id"])
        self._unsent += [frames.encode(step.message), *step.payload]
        if step.flush:
            unsent, self._unsent = self._unsent, []
            try:
                self._writer.writelines(unsent)
                if step.payload:
                    await asyncio.wait_for(self._writer.drain(), self._timeout)
            except (OSError, asyncio.TimeoutError) as error:
                raise self._unavailable(error) from error

    async def _receive(self, step: Receive) -> dict[str, Any] | None:
        while step.id not in self._answers:
            if not step.wait:
                return None
            timeout = self._timeout if step.timeout is None else step.timeout
            try:
                answer = await asyncio.wait_for(self._next(), timeout)
            except (OSError, ProtocolError, EOFError, asyncio.TimeoutError) as error:
                raise self._unavailable(error) from error
            if "id" not in answer:  # a refusal of the whole connection: the farm closes it
                protocol.check(answer)
            self._answers[answer.get("id", step.id)] = answer
        answer = self._answers.pop(step.id)
        self._unanswered.discard(step.id)
        self.broken = bool(self._unanswered)
        protocol.check(answer)
        return answer

    async def _next(self) -> dict[str, Any]:
        header = await self._reader.readexactly(frames.HEADER.size)
        length = frames.check_length(frames.HEADER.unpack(header)[0], frames.FRAME_LIMIT)
        return frames.decode(await self._reader.readexactly(length))

    def _unavailable(self, error: BaseException) -> FarmUnavailable:
        text = f"The farm at {self._endpoint} does not answer ({error})."
        return FarmUnavailable(text, self._endpoint.host, self._endpoint.port)

    def close(self) -> None:
        """Close, and return prefetched leases: the farm would keep them in quarantine, for this process
        lives."""
        if self.broken:
            self._writer.transport.abort()  # to wait until all is sent would outlive the event loop
            return
        release_message = self.session.release_message()
        if release_message is not None:
            self._writer.write(frames.encode(release_message))
        self.broken = True
        self._writer.close()

    async def closed(self) -> None:
        """Return once the socket is closed, after `close`: over TLS the other side says so first. Its silence
        is not waited for."""
        with suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), CLOSES_S)
        self._writer.transport.abort()


class AsyncFarmClient:
    """As `FarmClient`, with coroutines of the same names. For one event loop of one process; any number of
    tasks may use it at once."""

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        token: str | None = None,
        timeout: float = 30.0,
        *,
        tls: ssl.SSLContext | None = None,
        restart_s: float | None = None,
    ) -> None:
        self.endpoint = Endpoint.find(host, port, token, tls)
        self._policy = Policy(timeout, restart_s, self.endpoint.ended, self.endpoint.command)
        self._segments = MappedSegments()
        self._idle: list[AsyncConnection] = []

    async def __aenter__(self) -> AsyncFarmClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        connections = tuple(self._idle)
        self.close()
        await asyncio.gather(*(connection.closed() for connection in connections))

    async def submit(self, request: SaveRequest, *, when_busy: str = "wait") -> Receipt:
        """As `FarmClient.submit`; images are copied in a thread."""
        return await self._run(self._policy.submit(request, when_busy))

    async def submit_many(self, requests: Sequence[SaveRequest], *, when_busy: str = "wait") -> list[Receipt]:
        """As `FarmClient.submit_many`; images are copied in a thread."""
        return await self._run(self._policy.submit_many(requests, when_busy))

    async def wait(self, job: str | Receipt, timeout: float | None = None) -> JobReport:
        """As `FarmClient.wait`."""
        return await self._run(self._policy.wait(job, timeout))

    async def save(
        self, pixels: Any, path: str | os.PathLike[str], *, timeout: float | None = None, **options: Any
    ) -> str:
        """As `FarmClient.save`."""
        return await self._run(self._policy.save(pixels, path, timeout, options))

    async def job(self, job: str | Receipt) -> JobReport:
        """As `FarmClient.job`."""
        return await self._run(self._policy.report("job", job))

    async def jobs(self, limit: int = 100) -> list[JobReport]:
        """As `FarmClient.jobs`."""
        return await self._run(self._policy.jobs(limit))

    async def cancel(self, job: str | Receipt, index: int | None = None) -> JobReport:
        """As `FarmClient.cancel`."""
        return await self._run(self._policy.report("cancel", job, index))

    async def retry(self, job: str | Receipt, index: int | None = None) -> JobReport:
        """As `FarmClient.retry`."""
        return await self._run(self._policy.report("retry", job, index))

    async def dismiss(self, job: str | Receipt, index: int | None = None) -> JobReport:
        """As `FarmClient.dismiss`."""
        return await self._run(self._policy.report("dismiss", job, index))

    async def pause(self) -> PauseReport:
        """As `FarmClient.pause`."""
        return await self._run(self._policy.pause(True))

    async def resume(self) -> PauseReport:
        """As `FarmClient.resume`."""
        return await self._run(self._policy.pause(False))

    async def dashboard_link(self) -> str:
        """As `FarmClient.dashboard_link`."""
        return await self._run(self._policy.dashboard_link(self.endpoint.host))

    async def find(
        self,
        words: str = "",
        *,
        model: str = "",
        seed: int | None = None,
        since: datetime | float | None = None,
        score: str = "",
        similar: Any = None,
        job: str = "",
        failed: bool = False,
        limit: int = 50,
        before: int | None = None,
    ) -> list[CatalogueRow]:
        """As `FarmClient.find`."""
        filters = {"words": words, "model": model, "seed": seed, "score": score, "job": job, "failed": failed}
        return await self._run(self._policy.find(filters, since, similar, limit, before))

    async def status(self) -> dict[str, Any]:
        """As `FarmClient.status`."""
        return await self._run(self._policy.call("status"))

    async def ping(self) -> float:
        """As `FarmClient.ping`."""
        return await self._run(self._policy.ping())

    async def shutdown(self, *, now: bool = False) -> int:
        """As `FarmClient.shutdown`."""
        return await self._run(self._policy.shutdown(now))

    async def call(self, cmd: str, **fields: Any) -> dict[str, Any]:
        """As `FarmClient.call`."""
        return await self._run(self._policy.call(cmd, **fields))

    def close(self) -> None:
        """As `FarmClient.close`."""
        self._policy.closed = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        self._segments.close()

    async def _run(self, plan: Plan[T]) -> T:
        try:
            step = plan.send(None)
            while True:
                try:
                    done = await self._carry_out(step)
                except Exception as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(done)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _carry_out(self, step: Use | Sleep) -> Any:
        if isinstance(step, Sleep):
            await asyncio.sleep(step.seconds)
            return None
        async with self._borrowed() as connection:
            return await connection.run(step.steps(connection.session))

    @asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[AsyncConnection]:
        if self._policy.closed:
            text = "This AsyncFarmClient is closed."
            raise FarmUnavailable(text, self.endpoint.host, self.endpoint.port)
        self._policy.reused = bool(self._idle)
        if self._idle:
            connection = self._idle.pop()
        else:
            connection = await AsyncConnection.open(self.endpoint, self._policy.timeout, self._segments)
            self._policy.connected(connection.session)
        try:
            yield connection
        finally:
            if connection.broken or self._policy.closed:
                connection.close()
            else:
                self._idle.append(connection)
