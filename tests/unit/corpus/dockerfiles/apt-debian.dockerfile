FROM debian:bookworm
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      # the compiler
      gcc \
      # and make

      make \
 && rm -rf /var/lib/apt/lists/*
