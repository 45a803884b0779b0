FROM continuumio/miniconda3
RUN conda create -n env python=3.10
SHELL ["conda", "run", "-n", "env", "/bin/bash", "-c"]
RUN echo "$CONDA_DEFAULT_ENV"
ENTRYPOINT ["conda", "run", "--no-capture-output", "-n", "env", "python", "run.py"]
