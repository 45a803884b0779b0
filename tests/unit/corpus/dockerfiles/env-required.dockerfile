FROM alpine
ENV A="${MUST:?give it by --build-arg}"
