# syntax=docker/dockerfile:1-labs
FROM busybox AS src
FROM alpine
ARG MODE=755
COPY --link=true --parents --chmod=u=rwX,go=rX --exclude=*.tmp --exclude=$MODE/** --from=src ./a/*/x.txt /dest/
