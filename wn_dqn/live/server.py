"""The server of the live page. It has two addresses, the page and a stream of changes, and it writes no files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from wn_dqn import __version__
from wn_dqn.analysis.rendering import render_html
from wn_dqn.errors import UsageError
from wn_dqn.live.player import Players
from wn_dqn.live.watch import Watch

LOOPBACK = "127.0.0.1"
_PERIOD_S = 1.0
_NICENESS = 10
_HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}


def make_app(watch: Watch, players: Players, *, token: str = "", stopping: Callable[[], bool] = bool) -> Starlette:
    """The page about the runs of `watch`. If `token` is not empty, every address must include it."""

    def refused(request: Request) -> Response | None:
        given = request.query_params.get("token", "")
        if secrets.compare_digest(given.encode(), token.encode()):
            return None
        return PlainTextResponse("the address needs the token that `wn-dqn report --live` printed\n", 403, _HEADERS)

    async def page(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = f"default-src 'none'; img-src data:; connect-src 'self'; script-src 'nonce-{nonce}'; "
        policy += f"style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        content = render_html("live.html", nonce=nonce, version=__version__)
        return refused(request) or HTMLResponse(content, headers={**_HEADERS, "Content-Security-Policy": policy})

    async def events(request: Request) -> Response:
        shown = request.query_params.get("run", "")
        stream = _events(watch, players, shown, stopping)
        return refused(request) or StreamingResponse(stream, media_type="text/event-stream", headers=_HEADERS)

    hosts = ["*"] if token else [LOOPBACK, "localhost"]  # prevents DNS rebinding by other sites
    return Starlette(
        routes=[Route("/", page), Route("/events", events)],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
    )


async def _events(watch: Watch, players: Players, shown: str, stopping: Callable[[], bool]) -> AsyncIterator[str]:
    """The stream of events: ``runs`` after each change, and ``play`` every second if a run is `shown`."""
    sent = ""
    while not stopping():
        runs = json.dumps(await run_in_threadpool(watch.runs))
        if runs != sent:
            sent = runs
            yield f"event: runs\ndata: {runs}\n\n"
        folder = watch.folder(shown)
        if folder is not None:
            yield f"event: play\ndata: {json.dumps(await run_in_threadpool(players.picture, folder))}\n\n"
        await asyncio.sleep(_PERIOD_S)


def serve(paths: Sequence[Path], host: str | None, port: int, on_address: Callable[[str], None]) -> None:
    """Serve the page until the process is stopped. `on_address` is called with its address.

    `host` None means this machine only. With any other host, everybody who knows the token in the address has access.
    """
    _let_training_go_first()
    torch.set_num_threads(1)
    token = secrets.token_urlsafe(16) if host is not None else ""
    server: uvicorn.Server
    app = make_app(Watch(paths), Players(), token=token, stopping=lambda: server.should_exit)
    with _listening(host or LOOPBACK, port) as listening:
        address = f"http://{_in_url(host or LOOPBACK)}:{listening.getsockname()[1]}/"
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", lifespan="off", ws="none", timeout_graceful_shutdown=2)
        )
        on_address(address + (f"?token={token}" if token else ""))
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listening])


def _let_training_go_first() -> None:
    """Leave the processors to training: where the system knows idle processes, this is one, else one of low priority.

    Training waits for the slowest of its threads. A page that took one core for a moment would hold the others up.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # some containers refuse it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            return
    if hasattr(os, "nice"):
        os.nice(_NICENESS)


def _listening(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UsageError if the address does not exist, or is in use."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
            listening.listen()  # before the address is printed, so that an early request waits
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise UsageError(f"cannot listen on {host} port {port}: {error.strerror}; another --port may be free") from None
    return listening


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
