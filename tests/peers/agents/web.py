"""An agent of Starlette, served by uvicorn: what frameworks make of a request behind the proxy."""

from __future__ import annotations

import sys

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from agents.uvicorn_server import listen, serve

served = 0


async def about(request: Request) -> Response:
    """What the agent sees of the request."""
    global served
    served += 1
    # Some names may be there several times; the last one counts here.
    return JSONResponse({"headers": dict(request.headers), "url": str(request.url_for("about")), "served": served})


async def relative(request: Request) -> Response:
    return RedirectResponse("about")


async def reject(request: Request) -> Response:
    """Rejects an upload before it has read it; with `?read` it reads the upload to its end first."""
    if "read" in request.query_params:
        async for _ in request.stream():
            pass
    return PlainTextResponse("too large", 413)


async def headers(request: Request) -> Response:
    """As many header fields as wanted, each with as many bytes as wanted."""
    count, size = int(request.query_params["count"]), int(request.query_params["size"])
    response = PlainTextResponse("ok")
    for number in range(count):
        response.headers[f"x-field-{number}"] = "v" * size
    return response


async def hello(request: Request) -> Response:
    return PlainTextResponse(f"hello from {request.headers['x-deployment-id']}")


async def health(request: Request) -> Response:
    return PlainTextResponse("healthy")


ROUTES = [
    Route("/about", about, name="about"),
    Route("/relative", relative),
    Route("/reject", reject, methods=["POST"]),
    Route("/headers", headers),
    Route("/health", health),
    Route("/hello", hello),
    Mount("/slash", routes=[Route("/", health)]),
]


if __name__ == "__main__":
    serve(Starlette(routes=ROUTES), listen(int(sys.argv[2])))
