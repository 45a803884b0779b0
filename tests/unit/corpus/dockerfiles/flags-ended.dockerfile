FROM alpine
RUN -- --not-a-flag
CMD -- x
