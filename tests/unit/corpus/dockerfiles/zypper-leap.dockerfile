FROM registry.opensuse.org/opensuse/leap:15.5
RUN zypper -n ref && zypper -n in -y gcc-c++ && zypper clean -a
ENV LANG=C.UTF-8 LC_ALL=C.UTF-8
