ARG BASE=nvcr.io/nvidia/pytorch:24.03-py3
FROM ${BASE}
ARG TORCH_CUDA_ARCH_LIST="7.0;8.0;9.0+PTX"
ARG MAX_JOBS
ENV TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST} MAX_JOBS=${MAX_JOBS:-4}
RUN pip install flash-attn --no-build-isolation
