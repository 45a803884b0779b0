FROM spack/ubuntu-jammy:0.21 AS builder
RUN mkdir -p /opt/spack-environment && \
    (echo "spack:" \
&&   echo "  specs: [openmpi@4.1.6 fabrics=ucx]" \
&&   echo "  view: /opt/view") > /opt/spack-environment/spack.yaml
RUN cd /opt/spack-environment && spack env activate . && spack install --fail-fast
FROM ubuntu:22.04
COPY --from=builder /opt/spack-environment /opt/spack-environment
COPY --from=builder /opt/view /opt/view
RUN { \
      echo '#!/bin/sh' \
      && echo '. /opt/spack-environment/activate.sh' \
      && echo 'exec "$@"'; \
    } > /entrypoint.sh
ENTRYPOINT [ "/entrypoint.sh" ]
CMD [ "/bin/bash" ]
