FROM alpine
LABEL "com.example.vendor"="ACME Incorporated"
LABEL com.example.label-with-value="foo" version='1.0' description="This text \
has two lines"
LABEL maintainer someone at <example.org>
