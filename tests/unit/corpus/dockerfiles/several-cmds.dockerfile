FROM alpine
CMD one
CMD two
ENTRYPOINT ["a"]
ENTRYPOINT ["b"]
