# syntax=docker/dockerfile:1-labs
FROM alpine
ARG MODE=755
COPY --link --parents --chmod=$MODE --exclude=*.tmp --exclude=**/test --from=0 ./a/*/x.txt /dest/
