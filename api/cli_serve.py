"""`grapnel serve`: every collection under a folder, over HTTP."""

import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from api.cli_output import Output
from api.server_config import ListenConfig, ServerConfig
from index.errors import ConfigError, StorageError
from index.threads import end_helpers

if TYPE_CHECKING:
    from api.service import Service

log = logging.getLogger(__name__)

_BACKLOG = 1024
_CONNECTIONS = 4096
_CLOSING_S = 1.0
"""Time to close files in, for a server whose requests took all there was."""


def serve(args: Namespace, output: Output) -> int:
    """Serve until SIGTERM or SIGINT; then answer what is under way and end, `drain_s` later at most.

    Return 0, or 1 where the app could not be set up. Raises what kept models from being loaded or collections opened.
    """
    import uvicorn  # noqa: PLC0415  only a server needs these

    from api.http.app import create_app  # noqa: PLC0415
    from api.http.protocol import bounded_protocol  # noqa: PLC0415
    from api.logs import configure  # noqa: PLC0415
    from api.service import Service  # noqa: PLC0415

    config = _config(args)
    root = Path(args.data)
    if not root.is_dir():
        raise ConfigError(f"{root} is no folder: give the folder that holds, or will hold, the collections")
    configure(config.log.format, verbose=args.verbose)
    listening = _listen(config.server)
    service = Service(root, config)
    asked_at: list[float] = []

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            asked_at.append(time.monotonic())
            super().handle_exit(sig, frame)

        async def on_tick(self, counter: int) -> bool:
            return await super().on_tick(counter) or service.failure is not None

    server = Server(
        uvicorn.Config(
            create_app(service),
            http=bounded_protocol(config.limits),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=math.ceil(config.limits.drain_s),
        )
    )
    host, port = listening.getsockname()[:2]
    output.note(f"grapnel serves {root} on http://{f'[{host}]' if ':' in host else host}:{port}")
    for ending in (signal.SIGTERM, signal.SIGINT):
        # uvicorn takes these itself and raises them again when it has ended: by then they have done their work.
        signal.signal(ending, _nothing)
    server.run(sockets=[listening])
    if not _closed(service, min(asked_at, default=time.monotonic()) + config.limits.drain_s):
        # What still runs is a job, a compaction or a write that nobody waits for: they leave nothing half done.
        log.warning("ended while work was under way; nothing acknowledged is lost, start such a job again")
        sys.stderr.flush()
        os._exit(0)
    if service.failure is not None:
        raise service.failure
    return 0 if server.started or asked_at else 1  # uvicorn has said why


def _closed(service: "Service", deadline: float) -> bool:
    """Close a service; return whether all that it does had ended by `deadline`, or a moment after.

    Python would wait for its threads without end: some of them compact, which may take hours.
    """
    until = max(deadline, time.monotonic() + _CLOSING_S)
    ended: list[bool] = []

    def close() -> None:
        ended.append(service.close(until - time.monotonic()))

    closing = threading.Thread(target=close, name="grapnel-close", daemon=True)
    closing.start()
    closing.join(until - time.monotonic())
    end_helpers()  # idle by now: whoever they help is waited for
    others = [each for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()]
    for thread in others:
        thread.join(max(0.0, until - time.monotonic()))
    return ended == [True] and not any(thread.is_alive() for thread in others)


def _nothing(_signal: int, _frame: object) -> None:
    """Handle a signal by doing nothing."""


def _config(args: Namespace) -> ServerConfig:
    config = ServerConfig.read(None if args.config is None else Path(args.config), args.set)
    given = {"host": args.host, "port": args.port}
    server = replace(config.server, **{key: value for key, value in given.items() if value is not None})
    return replace(config, server=server)


def _listen(config: ListenConfig) -> socket.socket:
    """Return a listening socket: made here, so that a port in use is one clear line and port 0 can be told."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((config.host, config.port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise StorageError(
            f"cannot listen on {config.host}:{config.port}: {error.strerror}; choose another with --port"
        ) from error
    return listening
