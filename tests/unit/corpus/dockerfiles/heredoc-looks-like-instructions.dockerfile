FROM busybox
COPY <<EOF /Dockerfile.inner
FROM nowhere
RUN false \
EOF
RUN true
