FROM alpine
LABEL who="café"
COPY naïve.txt /
