# syntax=example.org/other/frontend:2
FROM alpine
