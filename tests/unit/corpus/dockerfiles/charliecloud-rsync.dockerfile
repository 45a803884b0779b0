FROM almalinux:8
RSYNC +m --exclude=.git src/ include/ /usr/local/src
NSYNC --perms --times a /b
RUN make -C /usr/local/src
