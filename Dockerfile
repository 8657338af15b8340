# syntax=docker/dockerfile:1

# The binary is linked statically against musl, so that the last stage needs neither a C library nor a shell.
FROM rust:1.95-alpine AS build
RUN apk add --no-cache build-base
WORKDIR /build
COPY . .
ARG GIT_SHA=""
ENV GIT_SHA=${GIT_SHA} CARGO_TERM_COLOR=never
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin zerostate \
    && install -D -m 0755 target/release/zerostate /image/zerostate
# A named volume takes the owner of the folder that it covers; owned by root it could not be written to.
RUN install -d -m 0700 -o 65532 -g 65532 /image/data

# Certificates of public authorities and a user without rights, and nothing else.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build --chown=65532:65532 /image/data /data
COPY --from=build /image/zerostate /zerostate
ENV HOST=0.0.0.0 PORT=8080 ZEROSTATE_DATA=/data ZEROSTATE_LOG_FORMAT=json
VOLUME /data
EXPOSE 8080
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=10s --retries=3 CMD ["/zerostate", "healthcheck"]
ENTRYPOINT ["/zerostate"]
CMD ["serve"]
