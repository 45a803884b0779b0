FROM opensuse/leap:15.5 AS mpich
ARG VERSION=4.1.2
WORKDIR /src
ADD --checksum=sha256:3492e98adab62b597ef0d292fb2459b6123bc80070a8aa0a30be6962075a12f0 \
    https://www.example.org/mpich-$VERSION.tar.gz .
RUN tar xzf mpich-$VERSION.tar.gz
WORKDIR mpich-$VERSION
RUN ./configure && make install
