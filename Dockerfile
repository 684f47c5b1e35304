# Two images from one build: --target backend, --target worker. Any builder will do; BuildKit is not needed.

ARG RUST_VERSION=1.95
ARG DEBIAN=bookworm

FROM rust:${RUST_VERSION}-slim-${DEBIAN} AS sources
WORKDIR /src
COPY . .

# What decides how the dependencies are built: the manifests, with empty programs instead of our code. The next stage copies
# files by their content, so it is repeated only when a manifest changes.
FROM sources AS manifests
RUN find . -type f -regextype posix-extended \
      ! -regex '.*/(Cargo\.(toml|lock)|src/(lib|main)\.rs|src/bin/[^/]+\.rs|examples/[^/]+\.rs|it/main\.rs)' -delete \
    && find . -type d -empty -delete \
    && find . -name lib.rs -exec truncate --size=0 {} + \
    && find . -name '*.rs' ! -name lib.rs -exec sh -c 'for file; do echo "fn main() { }" >"$file"; done' sh {} +

FROM rust:${RUST_VERSION}-slim-${DEBIAN} AS build
WORKDIR /src
COPY --from=manifests /src .
RUN cargo build --release --locked --package ktrdr-backend --package ktrdr-engines --bins
COPY --from=sources /src .
# Cargo compares times: our code must be newer than what was built of the empty programs.
RUN find . -path ./target -prune -o -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --package ktrdr-backend --package ktrdr-engines --bins \
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
