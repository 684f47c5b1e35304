# syntax=docker/dockerfile:1
# Two images from one build: --target backend, --target worker.

ARG RUST_VERSION=1.95
ARG DEBIAN=bookworm

FROM rust:${RUST_VERSION}-slim-${DEBIAN} AS build
WORKDIR /src
COPY . .
# The registry and the build directory are caches of the builder, so a change rebuilds only what it affects. The programs must be
# copied out of the cache in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked --package ktrdr-backend --package ktrdr-engines --bins \
    && install -D target/release/ktrdr-backend target/release/ktrdr-worker --target-directory /out

FROM debian:${DEBIAN}-slim AS runtime
# The health checks of docker-compose.yml use curl.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin ktrdr
# By number, so that others can check that it is not root.
USER 10001:10001
STOPSIGNAL SIGTERM

FROM runtime AS backend
COPY --from=build /out/ktrdr-backend /usr/local/bin/
# Reachable from outside of the container, so it needs KTRDR_TOKENS_FILE, or KTRDR_INSECURE=true.
ENV KTRDR_API_ADDR=0.0.0.0:8000
EXPOSE 8000
ENTRYPOINT ["ktrdr-backend"]

FROM runtime AS worker
COPY --from=build /out/ktrdr-worker /usr/local/bin/
# A new volume mounted here starts with these files. The worker's user owns them.
COPY --chown=ktrdr:ktrdr data /data
# The place of the outputs where the rest is read-only (docker-compose.inputs.yml).
RUN mkdir /data/outputs
ENV KTRDR_DATA_DIR=/data
WORKDIR /data
ENTRYPOINT ["ktrdr-worker"]
