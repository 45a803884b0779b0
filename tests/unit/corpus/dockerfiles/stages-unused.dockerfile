FROM alpine AS used
RUN echo used
FROM debian AS never
RUN false
FROM used
RUN --mount=type=bind,from=used,source=/etc,target=/mnt true
