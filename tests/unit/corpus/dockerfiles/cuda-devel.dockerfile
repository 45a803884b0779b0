ARG CUDA=12.4.1
ARG OS=ubuntu22.04
FROM nvidia/cuda:${CUDA}-devel-${OS} AS devel
FROM nvidia/cuda:${CUDA}-runtime-${OS}
ARG CUDA
ENV CUDA_MAJOR=${CUDA%%.*} CUDA_SHORT=${CUDA%.*} \
    NVIDIA_VISIBLE_DEVICES=all
ENV LD_LIBRARY_PATH=/usr/local/cuda/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
COPY --from=devel /usr/local/cuda/bin/nvcc /usr/local/bin/
