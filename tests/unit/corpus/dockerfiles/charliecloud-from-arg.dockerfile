FROM --arg=A=1 --arg=B=$A-2 alpine AS x
ENV SEEN=$A$B
