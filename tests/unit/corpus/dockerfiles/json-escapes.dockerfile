FROM alpine
RUN ["printf", "a\tb\u00e9\"", "$HOME"]
COPY ["a b", "c$UNSET d", "/dest dir/"]
