"""A server of pages, as those of React applications are.

Its redirects are absolute, made of `Host` or of its own address. It keeps sessions in cookies, and its pages name their
parts relative to themselves."""

from __future__ import annotations

import sys

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from agents.uvicorn_server import listen, serve

PAGE = '<!doctype html><title>App</title><div id="root"></div><script src="static/app.js"></script>'


async def start(request: Request) -> Response:
    """As `url_for` and `redirect_slashes` make it: of the client's own `Host`."""
    return RedirectResponse(request.url_for("login"))


async def login(request: Request) -> Response:
    """As a server makes it that knows its own address alone."""
    port = request.scope["server"][1]
    response = RedirectResponse(f"http://127.0.0.1:{port}/app/?from=login", 303)
    response.set_cookie("session", "secret", httponly=True, domain="example.com")
    return response


async def app(request: Request) -> Response:
    return HTMLResponse(PAGE) if "session" in request.cookies else RedirectResponse("/login")


async def script(request: Request) -> Response:
    return JSONResponse({"cookies": request.cookies}, headers={"service-worker-allowed": "/"})


ROUTES = [
    Route("/", start),
    Route("/login", login, name="login"),
    Mount("/app", routes=[Route("/", app), Route("/static/app.js", script)]),
]


if __name__ == "__main__":
    serve(Starlette(routes=ROUTES), listen(int(sys.argv[2])))
