"""Stands on the PATH as `aws`: hands its call to aws_cli_server.py, and makes one call fail where a test asks for it.

Environment:
TEST_AWS_SOCKET       the server's socket
TEST_AWS_LOG          a file: every call is noted there, one a line, as a Python list of its words
TEST_AWS_FAIL         "<service> <operation>": that call fails, as a refused one does; with "@<nth>" behind it that one
                      alone, with "@<nth>+" all from that one on
TEST_AWS_ERROR        "<code>: <text>" of its message
TEST_AWS_FAIL_AFTER   "yes": it is carried out and its answer lost

The tool starts it some thirty times in a run, so it does without socket and json: to import them takes longer than
all the rest.
"""

import _socket
import marshal
import os
import sys


def injected_failure(words: list[str]) -> bool:
    """Is this the call that is to fail? One that stays on this machine never is."""
    wanted, _, nth = os.environ.get("TEST_AWS_FAIL", "").partition("@")
    if words[:2] != wanted.split() or "--generate-cli-skeleton" in words:
        return False
    if not nth:
        return True
    with open(os.environ["TEST_AWS_LOG"], encoding="utf-8") as log:
        count = sum(line.startswith(str(words[:2])[:-1]) for line in log)
    return count >= int(nth[:-1]) if nth.endswith("+") else count == int(nth)


def forward(words: list[str]) -> int:
    request = marshal.dumps((words, dict(os.environ), os.getcwd()))
    streams = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
    connection = _socket.socket(_socket.AF_UNIX)
    connection.connect(os.environ["TEST_AWS_SOCKET"])
    connection.sendmsg([len(request).to_bytes(8, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
    connection.sendall(request)
    answer = connection.recv(1)
    return answer[0] if answer else 255


def main(words: list[str]) -> int:
    if "TEST_AWS_LOG" in os.environ:
        with open(os.environ["TEST_AWS_LOG"], "a", encoding="utf-8") as log:
            log.write(f"{words}\n")
    if injected_failure(words):
        if os.environ.get("TEST_AWS_FAIL_AFTER"):
            with open(os.devnull, "w", encoding="utf-8") as nowhere:
                os.dup2(nowhere.fileno(), 1)
            forward(words)
        operation = "".join(word.title() for word in words[1].split("-"))
        code, text = os.environ.get("TEST_AWS_ERROR", "InjectedFailure: planted by a test").split(": ", 1)
        print(f"\nAn error occurred ({code}) when calling the {operation} operation: {text}", file=sys.stderr)
        return 254
    return forward(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
