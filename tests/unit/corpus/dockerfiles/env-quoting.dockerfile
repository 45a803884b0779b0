FROM alpine
ENV ONE="John Doe" TWO=Rex\ The\ Dog THREE='$HOME "x"' \
    FOUR="a\"b\$c\\d\e" FIVE=a'b'"c"d
ENV SIX    six and   seven  "eight"
