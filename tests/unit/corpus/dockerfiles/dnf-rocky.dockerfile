FROM rockylinux:9
LABEL name="thing" \
      summary="A thing that \"works\"" version=1.0
RUN dnf -y install epel-release && dnf -y install 'dnf-command(config-manager)' && dnf clean all
