FROM alpine
RUN echo a && \
    echo b
COPY <<EOF /f
line
EOF
