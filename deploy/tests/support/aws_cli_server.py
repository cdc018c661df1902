"""Runs the real AWS CLI for many calls without starting Python anew for each.

`aws_cli_server.py SOCKET` imports the AWS CLI once and forks for every call that `bin/aws` hands over, with that call's
arguments, environment, directory and standard streams. What runs in the fork is the CLI itself, from its command line
to its exit code.
`test_apply.py` also runs a whole rollout with the installed `aws`, to show that this shortcut changes nothing.
"""

from __future__ import annotations

import contextlib
import gc
import marshal
import os
import select
import signal
import socket
import sys
import traceback

from awscli import clidriver

# Reading a service's model, endpoints and waiters is most of what a call costs. So those in use are read before the
# forks, by way of a call that stays on this machine.
CALLS = {
    "sts": "get-caller-identity",
    "ecs": "update-service",
    "elbv2": "modify-listener",
    "iam": "get-role",
    "logs": "put-metric-filter",
    "ecr": "create-repository",
    "secretsmanager": "describe-secret",
    "ssm": "get-parameter",
    "ec2": "describe-subnets",
    "cloudwatch": "put-metric-alarm",
    "sns": "list-topics",
}


def main(path: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    driver = clidriver.create_clidriver()
    for service, operation in CALLS.items():
        driver.session.create_client(service, region_name="us-east-2")
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            driver.main([service, operation, "--generate-cli-skeleton", "input"])
    # Else the collector would write to every page that a fork shares with this process, and so copy it.
    gc.collect()
    gc.freeze()
    gc.disable()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    # Its standard input ends with the tests, however they end.
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            serve(connection, driver)
        connection.close()


def serve(connection: socket.socket, driver: clidriver.CLIDriver) -> None:
    """Carries one call out and never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    status = 255
    try:
        size, streams, _, _ = socket.recv_fds(connection, 8, 3)
        words, environment, directory = marshal.loads(connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(directory)
        status = driver.main(words)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 255
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([status % 256]))
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
