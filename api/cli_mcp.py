"""`grapnel mcp`: the tools of api.mcp on standard input and output, as clients that start a program want them."""

import asyncio
import os
import sys
from argparse import Namespace
from contextlib import redirect_stdout
from pathlib import Path

from api.cli_output import Output
from index.errors import ConfigError, RequestError


def mcp(args: Namespace, output: Output) -> int:  # noqa: ARG001  stdout is the protocol's
    """Answer requests until standard input ends."""
    if args.url is not None:
        if args.config is not None:
            raise RequestError("--config goes with --data: a server has read its own")
        asyncio.run(_over_url(args.url))
    else:
        _over_folder(Path(args.data), None if args.config is None else Path(args.config))
    return 0


async def _over_url(url: str) -> None:
    from api.cli_remote import KEY_VARIABLE  # noqa: PLC0415  slow to import
    from api.client import AsyncGrapnel  # noqa: PLC0415
    from api.mcp import make_server, serve_stdio  # noqa: PLC0415
    from api.mcp_libraries import RemoteLibrary  # noqa: PLC0415

    async with AsyncGrapnel(url, os.environ.get(KEY_VARIABLE) or None) as client:
        library = RemoteLibrary(client)
        await serve_stdio(make_server(lambda _: library))


def _over_folder(root: Path, config: Path | None) -> None:
    from api.keys import LOCAL  # noqa: PLC0415  slow to import
    from api.mcp import make_server, serve_stdio  # noqa: PLC0415
    from api.mcp_libraries import ServiceLibrary  # noqa: PLC0415
    from api.server_config import ServerConfig  # noqa: PLC0415
    from api.service import Service  # noqa: PLC0415

    if not root.is_dir():
        raise ConfigError(f"{root} is no folder: give the folder that holds the collections")
    service = Service(root, ServerConfig.read(config))
    try:
        library = ServiceLibrary(service, LOCAL)
        server = make_server(lambda _: library)
        with redirect_stdout(sys.stderr):  # a model that is exported for the first time prints what it does
            service.start().join()
        if service.failure is not None:
            raise service.failure
        asyncio.run(serve_stdio(server))
    finally:
        service.close(service.limits.drain_s)
