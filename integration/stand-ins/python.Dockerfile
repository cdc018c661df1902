# Stands in for python:3.11-slim-bookworm: python3 with venv and pip.
ARG DEBIAN
FROM ${DEBIAN}
# Without this, pip uses its own certificate authorities and not the system's.
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt
RUN apt-get update -qq \
    && apt-get install -qq --yes --no-install-recommends python3 python3-venv >/dev/null \
    && rm -rf /var/lib/apt/lists/*
