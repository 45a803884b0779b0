#!/bin/sh
# setup.sh [GROUP…]: install, as root, the Debian packages that building and testing chlaunch needs and that are
# missing: groups build, cluster, lint, test, fuzz, bench, kernel, and hello, which is build and cluster. What is there is
# left alone; nothing that gets installed is started, now or at boot. Not root: says what to ask for.
set -eu
export PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C.UTF-8

missing=''

say() { sed 's/^/setup: /' >&2; }
has() { command -v "$1" >/dev/null 2>&1; }
need() { # PACKAGE TEST…: PACKAGE is wanted unless TEST succeeds
	package=$1
	shift
	"$@" >/dev/null 2>&1 || missing="$missing $package"
}
owned() { dpkg -S "$(readlink -f "$1")" >/dev/null 2>&1; } # by a Debian package
static() { ldd "$1" 2>&1 | grep -q 'not a dynamic executable'; }

group_build() {
	need python3 test -x /usr/bin/python3 # not another one on PATH: a venv made from root's own is closed to users
	need python3-venv /usr/bin/python3 -c 'import ensurepip, venv'
	need gcc has cc
	need libc6-dev test -e /usr/include/stdio.h
	need make has make
	need git has git
	need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
}

# A Slurm that somebody configured or compiled belongs to a cluster: adding Debian's daemons to it helps nobody.
slurm_is_the_sites() {
	has srun || return 1
	has slurmd && has slurmctld && return 1
	! owned "$(command -v srun)" || [ -e "${SLURM_CONF:-/etc/slurm/slurm.conf}" ]
}

group_cluster() {
	if slurm_is_the_sites; then
		say <<-TEXT
			this machine has a Slurm of its own ($(command -v srun)) but no slurmd and slurmctld to start a private
			cluster with; nothing was installed over it. Use that Slurm: make build, then
			    .venv/bin/ch-launch -N2 -n4 --ntasks-per-node=2 IMAGE -- COMMAND
			or run this on a plain Debian 12 or 13, for example in a virtual machine.
		TEXT
		exit 1
	fi
	need slurmctld has slurmctld
	need slurmd has slurmd
	need slurm-client has srun
	need libslurm-dev test -e /usr/include/slurm/spank.h
	pmix_packages
	need munge has munged
	need openmpi-bin has mpirun
	need iproute2 has ip
	need util-linux has setpriv
	need hostname has hostname
	need mmdebstrap has mmdebstrap
	need openssh-client has ssh-agent
	need rsync has rsync
	need squashfs-tools has mksquashfs
	need squashfuse has squashfuse_ll
	need busybox-static static /bin/busybox
}

# Debian's Slurm opens libpmix.so, which is in the -dev package. (That of testing, 26.05, is built without PMIx.)
pmix_packages() {
	if has srun && ! owned "$(command -v srun)"; then
		return
	fi
	need libpmix-dev has_file '/usr/lib/*/pmix2/lib/libpmix.so'
}
has_file() { # PATTERN
	# shellcheck disable=SC2086  # to be expanded
	set -- $1
	[ -e "$1" ]
}

group_test() {
	need strace has strace
	need gdb has gdb
	need cmake has cmake
	need libcap2-bin has setcap
	need xvfb has Xvfb
	need x11-utils has xdpyinfo
	need xauth has xauth
	need docker-registry has docker-registry
	need skopeo has skopeo
	need apache2-utils has htpasswd
	need openssl has openssl
	need microsocks has microsocks
	need umoci has umoci
	need podman has podman
	need linux-libc-dev-armhf-cross headers arm-linux-gnueabihf
	need linux-libc-dev-ppc64el-cross headers powerpc64le-linux-gnu
	need linux-libc-dev-s390x-cross headers s390x-linux-gnu
	group_lint
}

headers() { # COMPILER: the kernel's, for programs of another architecture; in Debian 13 linux-libc-dev has them all
	[ -e "/usr/include/$1/asm/unistd.h" ] || [ -e "/usr/$1/include/asm/unistd.h" ]
}

group_fuzz() {
	need clang has clang
	need libclang-rt-dev has_file '/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a'
	need cmake has cmake
}

group_kernel() {
	if [ "$(uname -m)" != x86_64 ]; then
		echo 'kernels are booted in an emulated x86-64 here, whose programs are the host'"'"'s: not on this machine' | say
		exit 1
	fi
	need qemu-system-x86 has qemu-system-x86_64
	need kmod has depmod
	need cpio has cpio
	need e2fsprogs has mkfs.ext4
}

group_lint() {
	need shellcheck has shellcheck
	need mandoc has mandoc
	need lua-check has luacheck
}

group_hello() {
	if [ "$(id -u)" != 0 ]; then
		cannot_hello 'a private Slurm with several users needs root'
	elif ! setpriv --reuid=65534 --clear-groups unshare --user --map-root-user true 2>/dev/null; then
		cannot_hello 'unprivileged users may not make user namespaces here'
	fi
	group_build
	group_cluster
}
cannot_hello() { # WHY
	say <<-TEXT
		$1. Without that: make build, then, on a cluster or on this machine,
		    .venv/bin/ch-launch -n4 IMAGE -- COMMAND
		where IMAGE is a directory with an unpacked image that has an MPI; without a Slurm here, its own MPI starts the
		four ranks. User namespaces must be allowed for that: see user.max_user_namespaces and, on Debian,
		kernel.unprivileged_userns_clone.
	TEXT
	exit 1
}

group_bench() {
	need strace has strace
	need charliecloud test -x /usr/bin/ch-run -a -x /usr/bin/ch-image
	need crun has crun
	need bubblewrap has bwrap
	need docker-registry has docker-registry
	need openssl has openssl
	need skopeo has skopeo
	need umoci has umoci
	need zstd has zstd
}

# invoke-rc.d and deb-systemd-invoke ask policy-rc.d before they start anything; 101 means "don't". One that is
# there already is covered in a private mount namespace, not replaced.
policy=/usr/sbin/policy-rc.d
apt_get() {
	if [ -e "$policy" ] && ! [ "${policy_is_ours:-}" ]; then
		# shellcheck disable=SC2016  # expanded by the inner shell
		unshare --mount sh -c 'mount --bind "$0" /usr/sbin/policy-rc.d && exec apt-get "$@"' "$refuse" "$@"
	else
		apt-get "$@"
	fi
}

install_packages() {
	refuse=$(mktemp)
	trap 'rm -f "$refuse"; [ -z "${policy_is_ours:-}" ] || rm -f "$policy"' EXIT
	trap 'exit 1' HUP INT TERM
	printf '#!/bin/sh\nexit 101\n' >"$refuse"
	chmod 755 "$refuse"
	if ! [ -e "$policy" ]; then
		policy_is_ours=yes
		cp "$refuse" "$policy"
	fi
	export DEBIAN_FRONTEND=noninteractive
	set -- --yes --quiet --no-install-recommends -o Dpkg::Use-Pty=0 install "$@"
	if ! apt_get "$@"; then # no package lists yet, or lists so old that the mirror has moved on
		apt-get --quiet update
		apt_get "$@"
	fi
}

# A package enables its service for the next boot; only what this run brought is turned off.
disable_services() {
	has systemctl || return 0
	for package; do
		case $package in
		slurmctld | slurmd | munge) systemctl --quiet disable "$package" 2>/dev/null || true ;;
		esac
	done
}

[ $# -gt 0 ] || set -- build cluster
for group; do
	case $group in
	hello | build | cluster | lint | test | fuzz | bench | kernel) "group_$group" ;;
	*)
		echo "no such group: $group (hello, build, cluster, lint, test, fuzz, bench, kernel)" | say
		exit 64
		;;
	esac
done
[ "$missing" ] || exit 0
if ! has apt-get; then
	echo "missing:$missing (Debian's names), and no apt-get here to install them" | say
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	echo "missing:$missing; ask for: apt-get install --no-install-recommends$missing" | say
	exit 1
fi
echo "setup: installing$missing"
# shellcheck disable=SC2086  # a list of package names
install_packages $missing
# shellcheck disable=SC2086
disable_services $missing
