FROM alpine
RUN cat <<A >/a && cat <<B >/b && echo $((1 << 3)) "<<NOT"
one
A
two # not a comment of ours
B
