"""Tokens of PyJWT and of a malicious maker, and the keys that verify the honest ones."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER, AUDIENCE = "https://issuer.test", "agents"
# Seconds that a client waits.
PATIENCE = 20.0


def settings(**more: str) -> dict[str, str]:
    return {"PIXELL_JWT_ISSUER": ISSUER, "PIXELL_JWT_AUDIENCES": f"others-too,{AUDIENCE}"} | more


def check_rejection(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.headers.get("x-pixell-error")) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert (problem["status"], problem["code"]) == (status, code)
    return problem


# How a key for an algorithm is made. RS256 is what most issuers use unless they are told otherwise.
MAKERS: dict[str, Callable[[], Any]] = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "PS256": lambda: rsa.generate_private_key(65537, 2048),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


class Issuer:
    """Signs tokens with a key, whose public part is a key set."""

    def __init__(self, kid: str = "one", algorithm: str = "ES256") -> None:
        self.kid = kid
        self.algorithm = algorithm
        self._key = MAKERS[algorithm]()

    def key_set(self) -> dict[str, Any]:
        key = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [{**key, "kid": self.kid, "alg": self.algorithm, "use": "sig"}]}

    def write(self, path: Path, *others: Issuer) -> Path:
        """Writes the key set, with the keys of `others` too."""
        keys = [key for issuer in (self, *others) for key in issuer.key_set()["keys"]]
        path.write_text(json.dumps({"keys": keys}))
        return path

    def public_pem(self) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        pem: bytes = self._key.public_key().public_bytes(serialization.Encoding.PEM, form)
        return pem

    def token(self, **claims: Any) -> str:
        """A token that is valid, except for these claims. One that is None is left out."""
        return jwt.encode(payload(claims), self._key, self.algorithm, headers={"kid": self.kid})


class QuickIssuer(Issuer):
    """One with a shared secret, which signs many tokens in little time."""

    _secret = bytes(range(32))

    def key_set(self) -> dict[str, Any]:
        return {"keys": [{"kty": "oct", "k": part(self._secret), "kid": self.kid, "alg": "HS256"}]}

    def token(self, **claims: Any) -> str:
        return jwt.encode(payload(claims), self._secret, "HS256", headers={"kid": self.kid})


def payload(claims: dict[str, Any]) -> dict[str, Any]:
    common = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": int(time.time()) + 600}
    return {name: value for name, value in (common | claims).items() if value is not None}


def part(value: Any) -> str:
    """A part of a token that its maker writes by hand."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(issuer: Issuer) -> dict[str, str]:
    """Tokens of a maker without the key, by what is wrong with each."""
    other = Issuer(issuer.kid, issuer.algorithm)
    honest = issuer.token()
    head, body, signature = honest.split(".")
    claims = part(payload({"sub": "mallory"}))
    hs256 = f"{part({'alg': 'HS256', 'kid': issuer.kid, 'typ': 'JWT'})}.{claims}"
    own = part({"alg": issuer.algorithm, "jwk": other.key_set()["keys"][0]})
    mac = hmac.new(issuer.public_pem(), hs256.encode(), hashlib.sha256).digest()
    return {
        "alg none": jwt.encode(payload({}), "", "none"),
        "alg none with a key id": f"{part({'alg': 'none', 'kid': issuer.kid})}.{claims}.",
        "alg None": f"{part({'alg': 'None', 'kid': issuer.kid})}.{claims}.{signature}",
        "no alg": f"{part({'kid': issuer.kid})}.{claims}.{signature}",
        "the public key as a secret": f"{hs256}.{part(mac)}",
        "another key": other.token(),
        "another key and key id": Issuer("two", issuer.algorithm).token(),
        "other claims with the signature": f"{head}.{claims}.{signature}",
        "no signature": f"{head}.{body}.",
        "a cut signature": f"{head}.{body}.{signature[:-4]}",
        "a signature of zeros": f"{head}.{body}.{part(bytes(64))}",
        "a key of its own": f"{own}.{claims}.{other.token().split('.')[2]}",
        "two parts": f"{head}.{body}",
        "five parts": f"{honest}.{head}.{body}",
    }


def rejected(issuer: Issuer) -> dict[str, str]:
    """Tokens of the issuer that are not valid here, by what is wrong with each."""
    now = int(time.time())
    return {
        "expired": issuer.token(exp=now - 120),
        "no expiry": issuer.token(exp=None),
        "not yet valid": issuer.token(nbf=now + 600),
        "another audience": issuer.token(aud="others"),
        "no audience": issuer.token(aud=None),
        "another issuer": issuer.token(iss="https://other.test"),
        "no issuer": issuer.token(iss=None),
        "a number as the subject": issuer.token(sub=5),
        "an object as the subject": issuer.token(sub={}),
        "an expiry that is no time": issuer.token(exp="never"),
    }
