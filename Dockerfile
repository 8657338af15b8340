# syntax=docker/dockerfile:1

# The pages. They need nothing but what the lock file names, and no script of a package runs.
FROM node:22-bookworm-slim AS web
WORKDIR /build/web
COPY web/package.json web/package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund && cp package-lock.json node_modules/.installed
COPY schema.graphql ../
COPY web ./
RUN bash build.sh

# The binary is linked statically, so that the last stage needs neither a C library nor a shell. With glibc rather than musl: it is
# what the tests run on, and it resolves names by itself since 2.34. deploy/image.sh takes the same steps without Docker and
# tries the result. Not the slim image, for the allocator is built with make.
FROM rust:1.95-bookworm AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /build
ENV CARGO_TERM_COLOR=never RUSTFLAGS="-C target-feature=+crt-static"
# First the dependencies alone, over sources that are empty: this layer is built again only when a manifest changes.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY entity/Cargo.toml entity/
COPY migration/Cargo.toml migration/
RUN mkdir -p src benches entity/src migration/src \
    && echo 'fn main() {}' | tee src/main.rs benches/edge.rs benches/live.rs benches/rules.rs benches/sandbox.rs >migration/src/main.rs \
    && touch src/lib.rs entity/src/lib.rs migration/src/lib.rs \
    && cargo build --profile dist --locked --bin zerostate --target "$(rustc -vV | sed -n 's/^host: //p')" \
    && rm -r src benches entity/src migration/src
COPY . .
COPY --from=web /build/web/dist web/dist
ARG GIT_SHA=""
ENV GIT_SHA=${GIT_SHA}
# What cargo takes for the age of a file is older in a checkout than the empty sources were.
RUN find src entity migration -name '*.rs' -exec touch {} + \
    && cargo build --profile dist --locked --bin zerostate --target "$(rustc -vV | sed -n 's/^host: //p')" \
    && install -D -m 0755 target/*/dist/zerostate /image/zerostate
# Most licences ask that their text goes with the binary.
RUN mkdir /image/licenses \
    && bash deploy/licenses.sh | gzip -9 >/image/licenses/THIRD-PARTY.txt.gz \
    && cp LICENSE-APACHE LICENSE-MIT /image/licenses/
# A named volume takes the owner of the folder that it covers; owned by root it could not be written to.
RUN install -d -m 0700 -o 65532 -g 65532 /image/data

# Certificates of public authorities and a user without rights, and nothing else.
FROM gcr.io/distroless/static-debian12:nonroot
ARG GIT_SHA=""
ARG VERSION=""
LABEL org.opencontainers.image.title="zerostate" \
    org.opencontainers.image.description="A market where software agents bid for tasks, with escrow, execution and reputation, behind GraphQL." \
    org.opencontainers.image.licenses="MIT OR Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${GIT_SHA}" \
    org.opencontainers.image.base.name="gcr.io/distroless/static-debian12:nonroot"
COPY --from=build --chown=65532:65532 /image/data /data
COPY --from=build /image/licenses /licenses
COPY --from=build /image/zerostate /zerostate
ENV HOST=0.0.0.0 PORT=8080 ZEROSTATE_METRICS_ADDRESS=0.0.0.0:9091 ZEROSTATE_DATA=/data ZEROSTATE_LOG_FORMAT=json
VOLUME /data
EXPOSE 8080 9091
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=10s --retries=3 CMD ["/zerostate", "healthcheck"]
ENTRYPOINT ["/zerostate"]
CMD ["serve"]
