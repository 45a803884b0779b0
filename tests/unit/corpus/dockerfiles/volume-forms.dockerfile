FROM postgres:16
ARG DATA=/var/lib/data
VOLUME ["/data one", "$DATA"]
VOLUME /x ${DATA}/y
