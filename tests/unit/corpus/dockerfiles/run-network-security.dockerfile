FROM alpine
RUN --network=none true
RUN --network=host --security=insecure ip link
RUN --security=insecure mount
