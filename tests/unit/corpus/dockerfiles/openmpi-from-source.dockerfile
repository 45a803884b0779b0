FROM debian:12
ARG OMPI=4.1.6
ARG PREFIX=/usr/local
ADD https://download.example.org/openmpi-${OMPI}.tar.bz2 /tmp/
RUN cd /tmp && tar xf openmpi-${OMPI}.tar.bz2 && cd openmpi-${OMPI} \
 && ./configure --prefix=${PREFIX} --with-pmix --with-slurm \
 && make -j$(nproc) install \
 && ldconfig
ENV OMPI_MCA_pml=ucx \
    OMPI_MCA_btl='^vader,tcp,openib,uct'
