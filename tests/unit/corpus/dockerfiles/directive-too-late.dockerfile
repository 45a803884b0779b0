# a comment first
# escape=`
FROM alpine
RUN echo `date` \
    more
