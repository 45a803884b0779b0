#!/bin/sh
# other-debian.sh NAME COMMAND…: run COMMAND, as root, in a copy of this checkout on another Debian: NAME is an image of
# tests/cluster/images.py, debian13 or debian-testing, whose Slurm and MPI are newer than this host's. Packages that
# tests/setup.sh installs there, the copy and its .venv stay in that image, in the cache, for the next time: what git
# tracks is copied, as it is in the working tree. Nothing else of the host is changed; to begin anew, remove the image.
set -eu
umask 022
cd "$(dirname "$0")/.."
name=$1
shift
[ "$(id -u)" = 0 ] || { echo 'other-debian: needs root, to make namespaces' >&2; exit 1; }
root=$(python3 tests/cluster/images.py "$name")
cache=$(dirname "$root")
exec 9<"$root"
flock --nonblock 9 || { echo "other-debian: waiting for another run in $root" >&2; flock 9; }

chmod 700 "$root/root" # in an image all is open
# How this host reaches mirrors: apt's proxies, pip's files, certificates, names.
apt-config dump | grep -E '^Acquire::https?::' >"$root/etc/apt/apt.conf.d/90host" || true
for path in /etc/pip.conf /etc/xdg/pip "$HOME/.config/pip" "$HOME/.pip" /usr/local/share/ca-certificates \
	/etc/ssl/certs/ca-certificates.crt /etc/resolv.conf /etc/hosts; do
	[ -e "$path" ] || continue
	copy=$root$path
	case $path in "$HOME"/*) copy=$root/root/${path#"$HOME"/} ;; esac
	rm -rf "$copy"
	mkdir -p "$(dirname "$copy")"
	cp -RL "$path" "$copy"
done

# A commit of the working tree, which no branch remembers; mtimes of files that are equal stay, for make.
commit=$(git -c user.name=test -c user.email=test@invalid stash create)
[ -d "$root/src/.git" ] || git init --quiet "$root/src"
git push --quiet --no-verify --force "$root/src" "${commit:-HEAD}:refs/test/head"
git -C "$root/src" checkout --quiet --force --detach refs/test/head
git -C "$root/src" clean --quiet -ffd

for variable in $(env | sed -n 's/^\(PIP_[A-Z_]*\|https\{0,1\}_proxy\|HTTPS\{0,1\}_PROXY\|no_proxy\|NO_PROXY\|SSL_CERT_[A-Z]*\|PYTEST_ADDOPTS\|CHLAUNCH_MUST_RUN\)=.*/\1/p'); do
	eval "set -- \"\$variable=\$$variable\" \"\$@\""
done
mkdir -p "$root/var/cache/chlaunch-test"
# shellcheck disable=SC2016  # expanded by the inner shell
exec unshare --mount --pid --fork --kill-child --propagation=private sh -euc '
	root=$1 cache=$2
	shift 2
	mount --bind "$root" "$root"
	mount --bind "$cache" "$root/var/cache/chlaunch-test"
	mount --rbind /dev "$root/dev"
	mount --rbind /sys "$root/sys"
	mount -t proc proc "$root/proc"
	mount --bind -o ro "$root/proc/sys" "$root/proc/sys" # the kernel is the host'"'"'s, and packages would set it up anew
	mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
	mount -t tmpfs -o mode=755 tmpfs "$root/run"
	cd "$root"
	pivot_root . mnt
	exec chroot . env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
		sh -euc "umount --lazy /mnt; cd /src; env \"\$@\"; exit" sh "$@" # the shell stays, as orphans have to be waited for
' sh "$root" "$cache" "$@"
