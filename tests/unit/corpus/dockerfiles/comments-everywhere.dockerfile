# one
   # two
FROM alpine # is no comment, so this would fail; therefore not here
