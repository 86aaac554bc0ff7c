"""The server of the page: one process, bound to this machine, read only, with a secret in its address.

A page of another site cannot read what it answers: without the secret it is refused, and so is a request under another
name of this machine, as a name that its owner points to 127.0.0.1 (DNS rebinding). Nothing in an address names a file.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import secrets
import sys
import traceback
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from ladcast.grid import Place
from ladcast.run import EXPECTED, TerminatedError, to_json
from ladcast.times import parse_time
from ladcast.view.frames import ABOUT_STRIKES, FieldRequest, Frames, Storms

LOOPBACK = "127.0.0.1"
NAMES = frozenset({LOOPBACK, "localhost", "[::1]"})
"""Under which a browser of this machine, or the end of an SSH tunnel, knows the server."""
STATIC = {
    "": ("page.html", "text/html; charset=utf-8"),
    "app.js": ("app.js", "text/javascript; charset=utf-8"),
    "map.js": ("map.js", "text/javascript; charset=utf-8"),
    "meteogram.js": ("meteogram.js", "text/javascript; charset=utf-8"),
    "style.css": ("style.css", "text/css; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
KEPT_BYTES = 2**28
THREADS = {"now": 2, "ahead": 1, "whole": 1}
"""For what is looked at, for what may be looked at next, and for what reads the whole forecast."""


@dataclass
class Viewer:
    """What the handlers share: the frames, the storms of each forecast, the secret, threads, maps made before."""

    frames: Frames
    storms: Sequence[Storms]
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    pools: dict[str, ThreadPoolExecutor] = field(
        default_factory=lambda: {name: ThreadPoolExecutor(count) for name, count in THREADS.items()}
    )
    _kept: OrderedDict[FieldRequest, tuple[bytes, dict[str, Any]]] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def map(self, request: FieldRequest) -> tuple[bytes, dict[str, Any]]:
        """Returns a map as little-endian float32, and what to write above it; maps made before are kept."""
        with self._lock:
            if request in self._kept:
                self._kept.move_to_end(request)
                return self._kept[request]
        plane, about = self.frames.field(request)
        made = (plane.tobytes(), about)
        with self._lock:
            self._kept[request] = made
            while len(self._kept) > 1 and sum(len(content) for content, _ in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
        return made

    def close(self) -> None:
        """Drops what is waiting, and lets the threads end."""
        for pool in self.pools.values():
            pool.shutdown(wait=False, cancel_futures=True)


class Handler(RequestHandler):
    """Refuses who does not know the secret, and answers what goes wrong in words."""

    viewer: Viewer

    def initialize(self, viewer: Viewer) -> None:
        """Takes what the handlers share."""
        self.viewer = viewer
        self._waiting: Future[Any] | None = None

    def set_default_headers(self) -> None:
        """Forbids the page everything but itself."""
        for name, value in HEADERS.items():
            self.set_header(name, value)
        self.clear_header("Server")

    def prepare(self) -> None:
        """Compares the name of the host, and the secret in constant time."""
        if re.sub(r":\d+$", "", self.request.host) not in NAMES:
            raise HTTPError(403, reason="Open the page at the address that `ladcast view` printed.")
        if not hmac.compare_digest(self.path_args[0].encode(), self.viewer.token.encode()):
            raise HTTPError(403, reason="This address is not that of the viewer that runs now. Use the printed one.")

    async def work(self, function: Callable[..., Any], *words: Any, when: str = "now") -> Any:
        """Runs a function in a thread; what is still waiting when the browser turns away never runs."""
        self._waiting = job = self.viewer.pools[when].submit(function, *words)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            raise HTTPError(503, reason="Nobody waits for this any more.") from None

    def on_connection_close(self) -> None:
        """Drops what nobody waits for any more."""
        if self._waiting is not None:
            self._waiting.cancel()

    def words(self) -> dict[str, str]:
        """Returns the words after the question mark."""
        return {name: self.get_query_argument(name) for name in self.request.query_arguments}

    def write_error(self, status_code: int, **about: Any) -> None:
        """Answers with a sentence: of an expected error its own, of any other its kind; the terminal has the rest."""
        _, error, trace = about.get("exc_info", (None, None, None))
        if isinstance(error, EXPECTED):
            self.set_status(422)
            message = str(error)
        elif isinstance(error, HTTPError):
            message = str(error.reason or error)
        else:
            message = f"{type(error).__name__}: {error}. The terminal of `ladcast view` has more."
            traceback.print_exception(type(error), error, trace, file=sys.stderr)
        self.send({"error": message})

    def send(self, content: Any) -> None:
        """Answers with JSON."""
        self.set_header("Content-Type", "application/json")
        self.finish(to_json(content))

    def log_exception(self, *about: Any) -> None:
        """Says nothing: `write_error` has said it."""


class PageHandler(Handler):
    """The page and its parts, which were read when the server started."""

    def get(self, token: str, name: str = "") -> None:
        """Answers with one of the known files."""
        file, kind = STATIC[name]
        self.set_header("Content-Type", kind)
        self.finish(read_static(file))


class DescriptionHandler(Handler):
    """What there is to look at."""

    async def get(self, token: str) -> None:
        """Answers with sources, quantities and colours, and with the coastlines."""
        described = await self.work(self.viewer.frames.describe)
        self.send({**described, "strikes": ABOUT_STRIKES, "coast": await self.work(coastlines)})


class FieldHandler(Handler):
    """One map."""

    async def get(self, token: str) -> None:
        """Answers with float32 values; what to write above the map is in a header."""
        words = self.words()
        when = "ahead" if "ahead" in words else "now"
        made, about = await self.work(self.viewer.map, FieldRequest.parse(words), when=when)
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("X-About", json.dumps(about))
        self.finish(made)


class SeriesHandler(Handler):
    """What the members say at a point, line by line as it is read."""

    async def get(self, token: str) -> None:
        """Answers with lines of JSON."""
        words = self.words()
        where = Place("point", float(words.get("latitude", "nan")), float(words.get("longitude", "nan")))
        lines = self.viewer.frames.series(int(words.get("source", 0)), parse_time(words.get("init", "")), where)
        line = await self.work(next, lines, None)
        self.set_header("Content-Type", "application/x-ndjson")
        while line is not None and not self.request.connection.stream.closed():  # type: ignore[union-attr]
            self.write(to_json(line) + "\n")
            await self.flush()
            line = await self.work(next, lines, None, when="ahead")


class StormsHandler(Handler):
    """Tracks, or strike probabilities."""

    async def get(self, token: str, what: str) -> None:
        """Answers with tracks as JSON, or with the strike probability as `FieldHandler` does."""
        words = self.words()
        number = int(words.get("source", 0))
        if not 0 <= number < len(self.viewer.storms):
            raise ValueError(f"There are {len(self.viewer.storms)} forecasts, from 0, and no number {number}.")
        storms, init = self.viewer.storms[number], parse_time(words.get("init", ""))
        if what == "tracks":
            self.send(await self.work(storms.lines, init, when="whole"))
            return
        plane, grid = await self.work(storms.strikes, init, when="whole")
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("X-About", json.dumps(grid.to_dict()))
        self.finish(plane.astype("<f4").tobytes())


@lru_cache
def read_static(file: str) -> bytes:
    """Reads one of the files of the page."""
    return (Path(__file__).parent / "page" / file).read_bytes()


@lru_cache
def coastlines() -> list[list[float]]:
    """Returns coastlines as flat lists: longitude, latitude, longitude, latitude, ..."""
    from ladcast.plots.maps import read_coastlines

    return [np.asarray(line.coords).round(2).ravel().tolist() for line in read_coastlines()]


def application(viewer: Viewer) -> Application:
    """Returns the server's table of addresses."""
    shared = {"viewer": viewer}
    names = "|".join(name.replace(".", r"\.") for name in STATIC if name)
    return Application(
        [
            (r"/([^/]*)/", PageHandler, shared),
            (rf"/([^/]*)/({names})", PageHandler, shared),
            (r"/([^/]*)/description", DescriptionHandler, shared),
            (r"/([^/]*)/field", FieldHandler, shared),
            (r"/([^/]*)/series", SeriesHandler, shared),
            (r"/([^/]*)/(tracks|strikes)", StormsHandler, shared),
            (r"/([^/]*).*", Handler, shared),
        ],
        log_function=lambda handler: None,
        compress_response=False,
    )


def listen(viewer: Viewer, port: int = 0) -> tuple[HTTPServer, str]:
    """Starts to listen on this machine alone; returns the server and the address of the page.

    Raises:
        OSError: the port is taken.
    """
    try:
        sockets = bind_sockets(port, LOOPBACK)
    except OSError as error:
        raise OSError(
            f"Port {port} of this machine is taken ({error.strerror}). Leave --port out for a free one."
        ) from None
    server = HTTPServer(application(viewer))
    server.add_sockets(sockets)
    return server, f"http://{LOOPBACK}:{sockets[0].getsockname()[1]}/{viewer.token}/"


def serve(viewer: Viewer, port: int, ready: Callable[[str], None]) -> None:
    """Serves the page until it is interrupted; `ready` is called with its address."""

    async def run() -> None:
        server, address = listen(viewer, port)
        ready(address)
        try:
            await asyncio.Event().wait()
        finally:
            server.stop()

    try:
        asyncio.run(run())
    except TerminatedError:
        raise
    except KeyboardInterrupt:  # the way to stop it
        pass
    finally:
        viewer.close()
