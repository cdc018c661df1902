# Stands in for envoyproxy/envoy: user and uid, paths, entry point, and no curl.
ARG DEBIAN
FROM ${DEBIAN}
RUN groupadd --system --gid 101 envoy \
    && useradd --system --uid 101 --gid 101 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin envoy \
    && mkdir /etc/envoy \
    && printf '#!/bin/sh\nexec "$@"\n' > /docker-entrypoint.sh \
    && chmod 755 /docker-entrypoint.sh \
    && ! command -v curl
COPY envoy /usr/local/bin/envoy
EXPOSE 10000
ENTRYPOINT ["/docker-entrypoint.sh"]
CMD ["envoy", "-c", "/etc/envoy/envoy.yaml"]
