"""The command line `grapnel`: parse, run one command, turn errors into one line and an exit status.

    0 done    1 failure    2 usage or configuration    3 locked by another process    130 interrupted    141 reader gone

Answers go to stdout, everything else to stderr. An exception that is no GrapnelError is a bug: its traceback shows.
"""

import logging
import os
import sys
from collections.abc import Sequence

from api.cli_arguments import make_parser
from index.errors import ConfigError, GrapnelError, LockedError, RequestError
from index.threads import share_memory_pools, sleep_between_calls

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_LOCKED = 3
EXIT_INTERRUPTED = 128 + 2  # as a shell reports death by SIGINT
EXIT_READER_GONE = 128 + 13  # as a shell reports death by SIGPIPE

_PACKAGES = ("api", "evaluation", "index", "retrieval", "training")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (default: the process's own) ask for; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more at exit: give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_READER_GONE


def _run(arguments: Sequence[str]) -> int:
    as_json = "--json" in arguments
    try:
        args = make_parser().parse_args(arguments)
        as_json = args.json
        if args.command == "serve":
            sleep_between_calls()  # before anything below loads numpy
            share_memory_pools()
        # Only a command that runs pays for numpy, SQLite and rich; --help and a typing error answer at once.
        from api.cli_commands import COMMANDS  # noqa: PLC0415
        from api.cli_output import Output  # noqa: PLC0415

        output = Output(as_json=as_json)
        _configure_logging(output.log_handler(), verbose=args.verbose)
        return COMMANDS[args.command](args, output)
    except GrapnelError as error:
        _report(error, as_json=as_json)
        return exit_status(error)
    except KeyboardInterrupt as error:
        _report(error, as_json=as_json)
        return EXIT_INTERRUPTED


def exit_status(error: GrapnelError) -> int:
    """Return the exit status that tells programs what kind of error it was."""
    if isinstance(error, LockedError):
        return EXIT_LOCKED
    return EXIT_USAGE if isinstance(error, ConfigError | RequestError) else EXIT_FAILURE


def _report(error: BaseException, *, as_json: bool) -> None:
    from api.cli_output import Output  # noqa: PLC0415  see _run

    Output(as_json=as_json).error(type(error).__name__, str(error) or "interrupted")


def _configure_logging(handler: logging.Handler, *, verbose: bool) -> None:
    """Show warnings of every library, and with `verbose` everything our own packages say."""
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    if verbose:
        for name in _PACKAGES:
            logging.getLogger(name).setLevel(logging.DEBUG)


if __name__ == "__main__":
    sys.exit(main())
