"""Images: builds Envoy's and pushes it under a tag that is used once; reads from a registry what an image is, without running it."""

import base64
import json
import os
import re
import subprocess
import tempfile
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

from .aws import Doc, Region
from .say import Stop
from .settings import ROOT

ECR = re.compile(r"(?P<account>[0-9]{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/(?P<name>[^:@]+)(?:[:@](?P<version>.+))?")
INDEXES = "application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFESTS = "application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"


def tag_of_commit() -> str:
    """<version>-<commit>, so that the same contents always have the same tag."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit, changed = git("rev-parse", "--short=12", "HEAD"), git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError) as error:
        raise Stop(f"no commit names the image: {error}", "set image_tag in the settings") from None
    if changed:
        raise Stop("the work tree has changes that are not committed", "commit them, or set image_tag in the settings")
    return f"{tomllib.loads((ROOT / 'Cargo.toml').read_text())['workspace']['package']['version']}-{commit}"


def push(ecr: Any, reference: str, tag: str, architecture: str) -> None:
    """Docker reads the registry's password from standard input and keeps it in a temporary directory that only this user can read. The
    build uses the user's own configuration (proxies, builders). All commands use the same daemon: the context of that configuration."""
    token = base64.b64decode(ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]).decode().partition(":")[2]
    build = ["build", "--platform", f"linux/{architecture}", "--build-arg", f"VERSION={tag}", "--build-arg", f"REVISION={tag.rpartition('-')[2]}"]
    build += ["--file", str(ROOT / "Dockerfile.envoy"), "--tag", reference, str(ROOT)]
    login = ["login", "--username", "AWS", "--password-stdin", reference.partition("/")[0]]
    own = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker"))
    with tempfile.TemporaryDirectory(prefix="pixell-envoy-") as config:
        present = json.loads((own / "config.json").read_text()) if (own / "config.json").exists() else {}
        Path(config, "config.json").write_text(json.dumps({"currentContext": present.get("currentContext", "")}))
        Path(config, "contexts").symlink_to(own / "contexts")
        for command, stdin, place in ((build, "", own), (login, token, config), (["push", reference], "", config)):
            try:
                subprocess.run(["docker", *command], input=stdin, text=True, check=True, env={**os.environ, "DOCKER_CONFIG": str(place)})
            except (OSError, subprocess.CalledProcessError) as error:
                reason = error.strerror if isinstance(error, OSError) else f"status {error.returncode}"
                raise Stop(f"docker {command[0]}: {reason}", "see above; or push this tag from elsewhere: apply uses it") from None


def inspect(f: Region, reference: str) -> tuple[list[str], Doc]:
    """An image's architectures and labels; none if it does not exist or is in another region or registry. ECR returns the manifest; the
    configuration is a separate blob."""
    place = ECR.fullmatch(reference)
    if place is None or place["region"] != f.name:
        return [], {}
    where, version = {"registryId": place["account"], "repositoryName": place["name"]}, place["version"] or "latest"

    def manifest(which: Doc) -> Doc:
        absent, kinds = ("RepositoryNotFoundException", "ImageNotFoundException"), [*INDEXES, *MANIFESTS]
        found = f.one("ecr", "batch_get_image", "images", *absent, **where, imageIds=[which], acceptedMediaTypes=kinds)
        return dict(json.loads(found["imageManifest"])) if found else {}

    found = manifest({"imageDigest" if version.startswith("sha256:") else "imageTag": version.split("@")[-1]})
    # An entry for the platform `unknown` is an attestation of the build.
    parts = [each for each in found.get("manifests", []) if each.get("platform", {}).get("architecture") not in (None, "unknown")]
    one, config = manifest({"imageDigest": parts[0]["digest"]}) if parts else found, {}
    if "config" in one:
        blob = f.all("ecr", "get_download_url_for_layer", "downloadUrl", **where, layerDigest=one["config"]["digest"])
        with urllib.request.urlopen(blob[0], timeout=10) as response:
            config = json.load(response)
    kinds = [each["platform"]["architecture"] for each in parts] or [config[key] for key in ("architecture",) if key in config]
    return kinds, config.get("config", {}).get("Labels") or {}
