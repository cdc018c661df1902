# Stands in for rust:*-slim-bookworm: a C linker, rustup and one toolchain at the paths of that image.
ARG DEBIAN
FROM ${DEBIAN}
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:$PATH
RUN apt-get update -qq \
    && apt-get install -qq --yes --no-install-recommends gcc libc6-dev >/dev/null \
    && rm -rf /var/lib/apt/lists/*
COPY rustup /usr/local/cargo/bin/rustup
COPY toolchains /usr/local/rustup/toolchains
RUN for name in cargo rustc; do ln -s rustup /usr/local/cargo/bin/$name; done \
    && rustup default "$(ls /usr/local/rustup/toolchains)"
