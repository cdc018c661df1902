"""Settings that are meant to keep clients out: a mistake ends the start, and no message shows a secret."""

from __future__ import annotations

import subprocess

import pytest

from served import command, environment
from tokens import AUDIENCE, ISSUER

SECRET = "c2VjcmV0"
PEM = f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n"
KEYS = f'{{"keys":[{{"kty":"oct","k":"{SECRET}"}}]}}'
TLS = {"PIXELL_TLS_CERT_FILE": "/nonexistent/crt", "PIXELL_TLS_KEY_FILE": "/nonexistent/key"}
JWT = {"PIXELL_JWT_ISSUER": ISSUER, "PIXELL_JWT_AUDIENCES": AUDIENCE, "PIXELL_JWKS_URL": "http://127.0.0.1:9/keys"}


def start_of(settings: dict[str, str]) -> str:
    """What a start with these settings says, which must end it."""
    ended = subprocess.run(
        command("wasm"), env=environment(settings), capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 78, ended
    assert ended.stdout == ""
    return ended.stderr


@pytest.mark.parametrize(
    ("name", "settings", "secrets"),
    [
        ("PIXELL_TLS_CERT_FILE", TLS, (PEM, SECRET, PEM.replace("\n", ""))),
        ("PIXELL_TLS_KEY_FILE", TLS, (PEM, SECRET, PEM.replace("\n", ""))),
        ("PIXELL_TLS_CLIENT_CA_FILE", TLS, (PEM, SECRET)),
        ("PIXELL_JWKS_FILE", {name: it for name, it in JWT.items() if "JWKS" not in name}, (KEYS, PEM)),
        ("PIXELL_JWKS_FILE", JWT, (KEYS, PEM)),
        ("PIXELL_JWKS_CA_FILE", JWT, (PEM, KEYS)),
        (
            "PIXELL_JWKS_URL",
            JWT,
            (
                f"https://user:{SECRET}@issuer.test/keys",
                f"https://{SECRET}@issuer.test/keys?x={SECRET}",
                f"http://issuer.test/keys?key={SECRET}",
                f"user:{SECRET}@issuer.test/keys",
                KEYS,
                PEM,
            ),
        ),
        ("PIXELL_ADMIN_TOKEN_FILE", {}, (SECRET, PEM)),
        ("PIXELL_EXTERNAL_ORIGINS", {}, (f"https://user:{SECRET}@agents.test",)),
    ],
)
def test_no_message_shows_a_secret(name: str, settings: dict[str, str], secrets: tuple[str, ...]) -> None:
    for secret in secrets:
        said = start_of(settings | {name: secret})
        assert f"{name} is " in said and SECRET not in said and "PRIVATE" not in said, said


FLEET = {"PIXELL_FLEET_CIDRS": "10.0.0.0/8"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # Other tasks' agents could get around what the first task asks.
        *(
            (
                FLEET | judged,
                'PIXELL_PEER_CERT_FILE is "": expected the absolute path of a file, '
                f"because PIXELL_FLEET_CIDRS and {name} are set\n",
            )
            for name, judged in (
                ("PIXELL_JWT_ISSUER", JWT),
                ("PIXELL_RATE_LIMIT", {"PIXELL_RATE_LIMIT": "100/s"}),
                ("PIXELL_TLS_CLIENT_CA_FILE", TLS | {"PIXELL_TLS_CLIENT_CA_FILE": "/nonexistent/ca"}),
            )
        ),
        (
            JWT | {"PIXELL_JWT_DEPLOYMENTS_CLAIM": ""},
            'PIXELL_JWT_DEPLOYMENTS_CLAIM is "": expected the name of a claim',
        ),
        (JWT | {"PIXELL_LOG_LEVEL": "trace"}, 'PIXELL_LOG_LEVEL is "trace": expected one of info, '),
        (JWT | {"PIXELL_LOG_LEVEL": "debug"}, 'PIXELL_LOG_LEVEL is "debug": expected one of info, '),
        ({"PIXELL_JWT_ISSUERS": ISSUER}, "PIXELL_JWT_ISSUERS is not a setting; the settings are PIXELL_FILTER, "),
        ({"PIXELL_JWKS_URI": ISSUER}, "PIXELL_JWKS_URI is not a setting"),
        ({"PIXELL_TLS_CERT": "/crt"}, "PIXELL_TLS_CERT is not a setting"),
        ({"PIXELL_RATELIMIT": "1/m"}, "PIXELL_RATELIMIT is not a setting"),
    ],
)
def test_a_mistake_that_would_let_clients_in_ends_the_start(settings: dict[str, str], expected: str) -> None:
    assert start_of(settings).startswith(f"error: {expected}")
