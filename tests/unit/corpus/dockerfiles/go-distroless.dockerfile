FROM golang:1.21-bullseye AS b
RUN go install example.org/tool@latest
FROM gcr.io/distroless/base-debian12:nonroot
COPY --from=b --link /go/bin/tool /tool
USER 65532:65532
CMD ["/tool"]
