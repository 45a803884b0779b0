ARG A=outer
FROM alpine AS one
ARG B=inner
FROM alpine
ENV SEEN=[${A}][${B}]
ARG A
ENV THEN=[${A}]
