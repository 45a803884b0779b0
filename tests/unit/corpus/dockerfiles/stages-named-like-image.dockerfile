FROM golang AS golang
FROM golang AS second
FROM alpine AS golang
COPY --from=golang2 /a /b
