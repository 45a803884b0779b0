# Syntax = docker/dockerfile:1
# CHECK=skip=JSONArgsRecommended;error=true
#escape=\
FROM scratch
CMD /app
