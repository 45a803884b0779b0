FROM intel/oneapi-hpckit:2024.0.1-devel-ubuntu22.04
SHELL ["/bin/bash", "-lc"]
RUN source /opt/intel/oneapi/setvars.sh --force; \
    mpiicx -O3 -o /usr/local/bin/app app.c
LABEL org.opencontainers.image.source=https://example.org/app
