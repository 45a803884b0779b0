FROM alpine
LABEL n=0
FROM debian
LABEL n=1
