FROM alpine
RUN echo a # handed to the shell
ENV A=b#c
