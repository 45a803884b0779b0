FROM alpine AS one
LABEL stage=one
FROM one AS two
LABEL stage=two
FROM two AS three
LABEL stage=three
