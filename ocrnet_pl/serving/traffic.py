"""Counts requests for Prometheus, and refuses those for which there is no room."""

from __future__ import annotations

import time

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Counts:
    """The figures of a server.

    Attributes:
        registry: All of them.
        answered: Number of answers by status.
        seconds: Time from the first byte of a request to the last of its answer.
        waiting: Number of requests that are not answered yet.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.answered = Counter(
            "ocrnet_requests", "Number of answers to requests for predictions.", ["status"], registry=self.registry
        )
        self.seconds = Histogram(
            "ocrnet_request_seconds", "Time until an answer was sent.", buckets=_SECONDS, registry=self.registry
        )
        self.waiting = Gauge(
            "ocrnet_requests_waiting", "Number of requests that are not answered yet.", registry=self.registry
        )

    async def page(self, request: Request) -> Response:
        """Return all figures in Prometheus' text format."""
        return Response(generate_latest(self.registry), headers={"content-type": CONTENT_TYPE_LATEST})


class Traffic:
    """Passes requests for predictions on, as long as not too many wait.

    Args:
        app: The application.
        path: Path of the requests for predictions.
        counts: The figures.
        most: Number of waiting requests from which more are refused with status 503.
    """

    def __init__(self, app: ASGIApp, path: str, counts: Counts, most: int) -> None:
        self.app, self.path, self.counts, self.most = app, path, counts, most
        self.waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or scope["path"] != self.path:
            await self.app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.waiting += 1
        self.counts.waiting.set(self.waiting)
        try:
            if self.waiting > self.most:
                full = JSONResponse({"detail": "too many requests are waiting; try again"}, 503, {"retry-after": "1"})
                await full(scope, receive, noting)
            else:
                await self.app(scope, receive, noting)
        finally:
            self.waiting -= 1
            self.counts.waiting.set(self.waiting)
            self.counts.answered.labels(str(status)).inc()
            self.counts.seconds.observe(time.perf_counter() - start)
