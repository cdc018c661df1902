"""One call of the route API from within the task: METHOD PATH BODY TOKEN. BODY and TOKEN may be empty."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from typing import Any


def main(method: str, path: str, body: str, token: str) -> None:
    headers = {"content-type": "application/json"} if body else {}
    if token:
        headers["authorization"] = f"Bearer {token}"
    data = body.encode() if body else None
    request = urllib.request.Request(f"http://127.0.0.1:9901{path}", data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            report(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        report(error.code, error.headers, error.read())


def report(status: int, headers: Any, content: bytes) -> None:
    lower = {name.lower(): value for name, value in headers.items()}
    print(json.dumps({"status": status, "headers": lower, "body": json.loads(content) if content else None}))


if __name__ == "__main__":
    main(*sys.argv[1:5])
