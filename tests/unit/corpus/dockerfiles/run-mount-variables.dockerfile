FROM alpine
ARG CACHE=apk ROOT=/var/cache
RUN --mount=type=cache,id=${CACHE},target="$ROOT/apk",uid=0 apk update
