"""Stands on the PATH as `aws`: hands its call to aws_cli_server.py, and makes one call fail where a test asks for it.

Environment: TEST_AWS_SOCKET, the server's socket. TEST_AWS_FAIL, "<service> <operation>" or "<service> <operation>@<nth>": that call fails, with the message
and exit status of a refused call; TEST_AWS_ERROR, "<code>: <text>" of that message; TEST_AWS_FAIL_AFTER=yes: the call is carried out and its answer lost. TEST_AWS_LOG, a file: every
call is noted there, one a line.
"""

import json
import os
import socket
import sys


def injected_failure(call: str) -> bool:
    """Is this the call that is to fail?"""
    wanted, _, nth = os.environ.get("TEST_AWS_FAIL", "").partition("@")
    if call != wanted:
        return False
    if not nth:
        return True
    with open(os.environ["TEST_AWS_LOG"], encoding="utf-8") as log:
        return sum(line.startswith(call + " ") for line in log) == int(nth)


def forward() -> int:
    request = json.dumps(
        {"arguments": sys.argv[1:], "environment": dict(os.environ), "directory": os.getcwd()}
    ).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ["TEST_AWS_SOCKET"])
        socket.send_fds(connection, [len(request).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(request)
        answer = connection.recv(1)
    return answer[0] if answer else 255


def main() -> int:
    call = " ".join(sys.argv[1:3])
    if "TEST_AWS_LOG" in os.environ:
        with open(os.environ["TEST_AWS_LOG"], "a", encoding="utf-8") as log:
            log.write(call + " " + json.dumps(sys.argv[3:]) + "\n")
    if injected_failure(call):
        if os.environ.get("TEST_AWS_FAIL_AFTER"):
            with open(os.devnull, "w", encoding="utf-8") as nowhere:
                os.dup2(nowhere.fileno(), 1)
            forward()
        operation = "".join(word.title() for word in sys.argv[2].split("-"))
        code, text = os.environ.get("TEST_AWS_ERROR", "InjectedFailure: planted by a test").split(": ", 1)
        print(f"\nAn error occurred ({code}) when calling the {operation} operation: {text}", file=sys.stderr)
        return 254
    return forward()


if __name__ == "__main__":
    sys.exit(main())
