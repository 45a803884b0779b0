FROM alpine
CMD ['single', 'quotes']
RUN [ -e /etc/passwd ] && echo yes
