FROM alpine
ADD --keep-git-dir=true https://git.example.org/repo.git#v1:sub /src
ADD --unpack=false rootfs.tar.xz /
ADD --chown=0:0 --chmod=600 a.tar /b/
