FROM alpine
RUN cat << EOF > /motd
welcome
EOF
