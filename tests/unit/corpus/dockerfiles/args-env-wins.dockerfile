FROM alpine
ENV V=env
ARG V=arg
RUN echo $V
ENV W=$V
