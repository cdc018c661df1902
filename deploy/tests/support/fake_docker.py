"""Stands on the PATH as `docker`. Builds nothing and notes each call; `push` lists the image in moto's registry.

Environment:
TEST_DOCKER_LOG    a file: every call is noted there, one a line
TEST_DOCKER_FAIL   the subcommand that fails
AWS_ENDPOINT_URL   moto's address
"""

import hashlib
import json
import os
import sys
import urllib.request


def put_image(reference: str) -> None:
    repository, tag = reference.split("/", 1)[1].rsplit(":", 1)
    digest = "sha256:" + hashlib.sha256(reference.encode()).hexdigest()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": digest, "size": 1},
            "layers": [],
        }
    )
    request = urllib.request.Request(
        os.environ["AWS_ENDPOINT_URL"],
        data=json.dumps({"repositoryName": repository, "imageTag": tag, "imageManifest": manifest}).encode(),
        headers={
            "X-Amz-Target": "AmazonEC2ContainerRegistry_V20150921.PutImage",
            "Content-Type": "application/x-amz-json-1.1",
            "Authorization": f"AWS4-HMAC-SHA256 Credential=test/20260101/{os.environ['AWS_REGION']}/ecr/aws4_request",
        },
    )
    urllib.request.urlopen(request).read()


def main() -> int:
    if sys.argv[1] == "version":
        return int("version" == os.environ.get("TEST_DOCKER_FAIL"))
    with open(os.environ["TEST_DOCKER_LOG"], "a", encoding="utf-8") as log:
        log.write(" ".join(sys.argv[1:]) + "\n")
    if sys.argv[1] == os.environ.get("TEST_DOCKER_FAIL"):
        print(f"docker: {sys.argv[1]} failed (planted by a test)", file=sys.stderr)
        return 1
    if sys.argv[1] == "login":
        assert sys.stdin.read().strip(), "no password on standard input"
    if sys.argv[1] == "push":
        put_image(sys.argv[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
