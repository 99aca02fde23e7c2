"""`grapnel serve`: every collection under a folder, over HTTP."""

import logging
import os
import signal
import socket
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from api.cli_output import Output
from api.server_config import ListenConfig, ServerConfig
from index.errors import ConfigError, StorageError

log = logging.getLogger(__name__)

_BACKLOG = 1024
_CONNECTIONS = 4096


def serve(args: Namespace, output: Output) -> int:
    """Serve until SIGTERM or SIGINT; then answer what is under way and end."""
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
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(service),
            http=bounded_protocol(config.limits),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=round(config.limits.drain_s),
        )
    )
    host, port = listening.getsockname()[:2]
    output.note(f"grapnel serves {root} on http://{f'[{host}]' if ':' in host else host}:{port}")
    for ending in (signal.SIGTERM, signal.SIGINT):
        # uvicorn takes these itself and raises them again when it has ended: by then they have done their work.
        signal.signal(ending, _nothing)
    server.run(sockets=[listening])
    if not service.close(config.limits.drain_s):
        # What still runs is a job or a compaction: they leave nothing half done, so nobody waits for them.
        log.warning("ended while a job was running; nothing acknowledged is lost, start the job again")
        sys.stderr.flush()
        os._exit(0)
    return 0


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
