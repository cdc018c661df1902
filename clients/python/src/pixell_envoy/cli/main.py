"""The command line: arguments, errors and exit codes."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Optional

from .. import __version__
from ..client import DEFAULT_ADMIN_URL, RouteApiClient
from ..errors import InvalidArgument, RouteApiError, Unreachable
from .commands import fleet, routes, status
from .output import Output
from .watch import watch

URL_VARIABLE = "ENVOY_ADMIN_URL"

OK, REJECTED, USAGE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130

_EPILOG = f"""
The address is --url, else ${URL_VARIABLE}, else {DEFAULT_ADMIN_URL}. The token is in the file that
$PIXELL_ADMIN_TOKEN_FILE names, or in $PIXELL_ADMIN_TOKEN.

Exit codes: 0 done, 1 Envoy rejected the request or its response is not one of the route API, 2 wrong arguments,
3 Envoy cannot be reached, 130 interrupted.
"""

_COMMANDS = {"status": status, "routes": routes, "fleet": fleet}


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs one command and returns its exit code."""
    given = _parser().parse_args(arguments)
    try:
        asyncio.run(_run(given))
    except InvalidArgument as error:
        return _failed(USAGE, str(error))
    except Unreachable as error:
        return _failed(UNREACHABLE, f"{error}. Does Envoy run, and is this a shell inside its task?")
    except RouteApiError as error:
        return _failed(REJECTED, str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has enough. Python would complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OK


async def _run(given: argparse.Namespace) -> None:
    output = Output(sys.stdout, given.json)
    async with RouteApiClient(given.url, timeout=given.timeout) as client:
        if given.command == "watch":
            await watch(client, output, given.interval)
        else:
            await _COMMANDS[given.command](client, output, given.url)


def _failed(code: int, message: str) -> int:
    print(f"pixell_envoy: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="JSON, for programs")
    common.add_argument(
        "--url", default=os.environ.get(URL_VARIABLE) or DEFAULT_ADMIN_URL, help="the address of the route API"
    )
    common.add_argument("--timeout", type=_seconds, default=5.0, metavar="SECONDS", help="for each request (default 5)")
    parser = argparse.ArgumentParser(
        prog="python -m pixell_envoy",
        description="Shows what Envoy has.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("status", parents=[common], help="readiness, and the versions and sizes of both maps")
    commands.add_parser("routes", parents=[common], help="the routes of this task")
    commands.add_parser("fleet", parents=[common], help="the other tasks, and the ids that they serve")
    watching = commands.add_parser("watch", parents=[common], help="what changes, until it is interrupted")
    watching.add_argument("--interval", type=_seconds, default=1.0, metavar="SECONDS", help="between looks (default 1)")
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError
    return seconds
