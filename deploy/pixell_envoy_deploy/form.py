"""The form of the data path's listeners: as they are, or TLS with the certificate of a domain."""

from typing import Any

from .aws import Doc
from .facts import Facts
from .say import Stop

# TLS 1.2 and 1.3 with forward secrecy and authenticated encryption, as Envoy's own.
# https://docs.aws.amazon.com/elasticloadbalancing/latest/network/describe-ssl-policies.html
POLICY = "ELBSecurityPolicy-TLS13-1-2-Res-2021-06"
# The keys that a listener may have; ACM lists only RSA up to 2048 bits unless it is asked for more.
KEYS = ["RSA_2048", "RSA_3072", "RSA_4096", "EC_prime256v1", "EC_secp384r1"]


def covers(name: str, domain: str) -> bool:
    """Whether a name of a certificate stands for the domain. A star stands for one label."""
    return name.lower() == domain or (name.startswith("*.") and name[2:].lower() == domain.partition(".")[2])


def certificate(f: Facts) -> Doc:
    """The issued certificate of the settings' domain that is valid for longest."""
    domain, arguments = f.settings.certificate_domain, {"CertificateStatuses": ["ISSUED"], "Includes": {"keyTypes": KEYS}}
    arns = [each["CertificateArn"] for each in f.all("acm", "list_certificates", "CertificateSummaryList", **arguments)]
    found = [f.one("acm", "describe_certificate", "Certificate", CertificateArn=arn) or {} for arn in arns]
    ours = [each for each in found if any(covers(name, domain) for name in [each["DomainName"], *each.get("SubjectAlternativeNames", [])])]
    if not ours:
        ask = f"aws acm request-certificate --region {f.name} --domain-name {domain} --validation-method DNS"
        raise Stop(f"ACM has no issued certificate for {domain} in {f.name}", ask)
    return max(ours, key=lambda each: str(each.get("NotAfter", "")))


def wanted(f: Facts) -> Doc | None:
    """The form that the settings ask for; None to leave listeners as they are."""
    if not f.settings.certificate_domain:
        return None
    arn = certificate(f)["CertificateArn"]
    return {"Protocol": "TLS", "SslPolicy": POLICY, "Certificates": [{"CertificateArn": arn}], "AlpnPolicy": ["HTTP2Preferred"]}


def spoken(listener: Doc | None) -> Doc | None:
    """The form of a listener."""
    if listener is None:
        return None
    found: dict[str, Any] = {key: listener[key] for key in ("Protocol", "SslPolicy", "AlpnPolicy") if listener.get(key)}
    arns = [{"CertificateArn": each["CertificateArn"]} for each in listener.get("Certificates", [])]
    return found | ({"Certificates": arns} if arns else {})


def shown(form: Doc) -> str:
    """A form in words."""
    if form["Protocol"] != "TLS":
        return str(form["Protocol"])
    names = ", ".join(each["CertificateArn"] for each in form.get("Certificates", []))
    return f"TLS with {names or 'no certificate'}, {', '.join(form.get('AlpnPolicy', [])) or 'no ALPN'}, {form.get('SslPolicy', 'no policy')}"
