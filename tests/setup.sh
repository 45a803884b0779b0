#!/bin/sh
# setup.sh [GROUP…]: install, as root, the Debian packages that building and testing chlaunch needs and that are
# missing: groups build, cluster, test, bench (default: build cluster). What is there is left alone, nothing that
# gets installed is started, now or at boot. Not root: say what to ask for.
set -eu
export PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C.UTF-8

missing=''

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
		cat >&2 <<-TEXT
			setup: this machine has a Slurm of its own ($(command -v srun)) but no slurmd and slurmctld to start a private
			setup: cluster with; nothing was installed over it. Try that Slurm itself, 'ch-launch -N2 -n4 IMAGE -- COMMAND',
			setup: or run this on a plain Debian 12 or 13, which can be a virtual machine.
		TEXT
		exit 1
	fi
	need slurmctld has slurmctld
	need slurmd has slurmd
	need slurm-client has srun
	pmix_package
	need munge has munged
	need openmpi-bin has mpirun
	need iproute2 has ip
	need util-linux has setpriv
	need hostname has hostname
	need mmdebstrap has mmdebstrap
	need busybox-static static /bin/busybox
}

pmix_package() { # Debian's Slurm has its PMIx plugin in a package of its own since 13
	if apt-cache show slurm-wlm-pmix-plugin >/dev/null 2>&1; then
		need slurm-wlm-pmix-plugin installed slurm-wlm-pmix-plugin
	fi
}
installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

group_test() {
	need strace has strace
	need gdb has gdb
	need shellcheck has shellcheck
	need mandoc has mandoc
}

group_bench() {
	need charliecloud test -x /usr/bin/ch-run
	need crun has crun
	need bubblewrap has bwrap
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
	build | cluster | test | bench) "group_$group" ;;
	*)
		echo "setup: no such group: $group (build, cluster, test, bench)" >&2
		exit 64
		;;
	esac
done
[ "$missing" ] || exit 0
if ! has apt-get; then
	echo "setup: missing:$missing (Debian's names), and no apt-get here to install them" >&2
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	echo "setup: missing:$missing; ask an administrator for: apt-get install --no-install-recommends$missing" >&2
	exit 1
fi
echo "setup: installing$missing"
# shellcheck disable=SC2086  # a list of package names
install_packages $missing
# shellcheck disable=SC2086
disable_services $missing
