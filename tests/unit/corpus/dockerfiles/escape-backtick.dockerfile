# escape=`
FROM mcr.example.org/windows
ENV P=C:\tools\bin Q="a`"b"
COPY a `
     b C:\dest\
RUN dir C:\
WORKDIR /x
