FROM spack/almalinux9 AS builder
COPY <<EOF /env/spack.yaml
spack:
  specs:
  - "hdf5@${HDF5:-1.14} +mpi"
  view: /opt/view
EOF
RUN spack -e /env install
