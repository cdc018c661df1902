"""The listeners with TLS: found by the domain, planned, applied, verified, and taken back."""

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from moto.backends import get_backend

from pixell_envoy_deploy import form
from pixell_envoy_deploy.settings import A2A_PORT

from .account import ACCOUNT, REGION, Account
from .conftest import S, Tool

DOMAIN = "agents.example.com"
SOON, LATE = (datetime.now(UTC) + timedelta(days=days) for days in (20, 200))


def issue(account: Account, **certificates: tuple[list[str], datetime]) -> dict[str, str]:
    """ACM has these certificates and no others: for names, until a time. Returns their ARNs."""
    get_backend("acm")[ACCOUNT][REGION].reset()
    return {which: account.api("acm").import_certificate(**pair(*each))["CertificateArn"] for which, each in certificates.items()}


def pair(names: list[str], end: datetime) -> dict[str, bytes]:
    """A certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(datetime.now(UTC) - timedelta(days=1)).not_valid_after(end)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False)
    signed = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {"Certificate": signed, "PrivateKey": private}


def test_a_name_of_a_certificate_stands_for_a_domain() -> None:
    for name, stands in ((DOMAIN, True), ("Agents.Example.com", True), ("*.example.com", True), ("*.com", False), ("example.com", False)):
        assert form.covers(name, DOMAIN) is stands, name
    assert not form.covers("*.example.com", "example.com") and not form.covers("*.example.com", "a.b.example.com")


def test_without_a_certificate_nothing_is_changed(tool: Tool, account: Account, configured: Any) -> None:
    configured(certificate_domain=DOMAIN)
    issue(account, other=(["a.example.com"], LATE))
    out = tool("check", 1)
    assert f"ERROR  certificate       ACM has no issued certificate for {DOMAIN}" in out and "aws acm request-certificate" in out
    account.calls.clear()
    tool("apply --yes", 1)
    assert not account.changes()
    issue(account, ending=([DOMAIN], datetime.now(UTC) + timedelta(days=3)))
    assert "expires in 2 days" in tool("check", 1)


def test_listeners_speak_tls_from_the_test_to_the_shift_and_back(
    tool: Tool, account: Account, configured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = Mock(side_effect=lambda endpoint, tls, name, token: ("NOT_FOUND", "NOT_FOUND: no") if "no-such" in name else ("OK", name))
    monkeypatch.setattr("pixell_envoy_deploy.ask.call", called)
    tool("apply --yes --in-place")
    assert account.listener(A2A_PORT)["Protocol"] == "TCP"
    configured(certificate_domain=DOMAIN, image_tag="2.0")
    arns = issue(
        account,
        soon=([DOMAIN], SOON),
        late=(["example.com", "*.example.com"], LATE),
        other=(["a.example.com", "*.a.example.com"], LATE + timedelta(days=1)),
    )
    tls = f"TLS with {arns['late']}, HTTP2Preferred, {form.POLICY}"
    assert f"will speak {tls}: clients that connect without TLS get no response any more" in tool("check")
    assert f"port {S.test_port}: (no listener) -> {tls} to {S.a2a_target_group}-green" in tool("plan")
    assert f'"value": "https://{DOMAIN}:50051"' in tool("render")
    tool("apply --yes")
    test = account.listener(S.test_port)
    assert (test["Protocol"], test["AlpnPolicy"], test["SslPolicy"]) == ("TLS", ["HTTP2Preferred"], form.POLICY)
    assert [each["CertificateArn"] for each in test["Certificates"]] == [arns["late"]]
    assert account.listener(A2A_PORT)["Protocol"] == "TCP", "clients still reach the task of before as before"
    assert tool("apply --yes").count("as wanted") == 6
    tool("verify --test agent-a")
    assert {call.args[:2] for call in called.call_args_list} == {(f"{DOMAIN}:{S.test_port}", True)}
    assert f"port {A2A_PORT}: TCP to {S.a2a_target_group} -> {tls} to {S.a2a_target_group}-green" in tool("shift --yes")
    assert account.listener(A2A_PORT)["Protocol"] == "TLS"
    assert f"port {A2A_PORT}: {tls} to {S.a2a_target_group}-green -> TCP to {S.a2a_target_group}" in tool("rollback --yes")
    assert account.listener(A2A_PORT)["Protocol"] == "TCP" and account.leads(A2A_PORT) == [S.a2a_target_group]


def test_a_newer_certificate_replaces_the_one_before(tool: Tool, account: Account, configured: Any) -> None:
    def certificates() -> list[str]:
        return [each["CertificateArn"] for each in account.listener(A2A_PORT)["Certificates"]]

    configured(certificate_domain=DOMAIN)
    first = issue(account, only=([DOMAIN], SOON))["only"]
    tool("apply --yes --in-place")
    assert certificates() == [first]
    newer = account.api("acm").import_certificate(**pair([DOMAIN], LATE))["CertificateArn"]
    assert f": TLS with {first}" in tool("plan --in-place") and f"-> TLS with {newer}" in tool("apply --yes --in-place")
    assert certificates() == [newer]
