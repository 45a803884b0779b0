FROM alpine:3.19
RUN apk add --no-cache --virtual .build gcc musl-dev \
	&& cc -o /usr/bin/x x.c \
	&& apk del .build
SHELL ["/bin/ash", "-eo", "pipefail", "-c"]
RUN wget -O - https://example.org | wc -l > /number
CMD exec /usr/bin/x
