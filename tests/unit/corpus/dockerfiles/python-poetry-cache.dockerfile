# syntax=docker/dockerfile:1.7
FROM python:3.12 AS deps
RUN --mount=type=cache,target=/root/.cache/pip,sharing=locked \
    --mount=type=bind,source=poetry.lock,target=/src/poetry.lock \
    pip install poetry && poetry install
FROM deps
COPY --chown=root:root src/ /src/
CMD python -m package
