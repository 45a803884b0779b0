ARG PYTHON=3.11
FROM python:${PYTHON}-bookworm
ARG PYTHON
ENV VERSION=$PYTHON
RUN python${PYTHON} -m venv /venv
ENV PATH=/venv/bin:$PATH
ENTRYPOINT ["python"]
