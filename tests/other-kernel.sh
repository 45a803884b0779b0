#!/bin/sh
# other-kernel.sh NAME COMMAND…: run COMMAND, as root, in this checkout on another kernel: NAME is an image of
# tests/cluster/images.py with one to boot, linux-5.10, of Debian 11. It boots in an emulated machine without a network
# (qemu, and never KVM: it is the same everywhere), which takes ten times as long as this one. What that sees is this
# host's files, whose changes end with it; /tmp and /var/tmp are an ext4 file system of its own, as is what the tests keep.
# Standard output and error come out as one; the status is 1 if COMMAND fails. Nothing of the host is changed.
set -eu
umask 022
cd "$(dirname "$0")/.."
name=$1
shift
[ "$(id -u)" = 0 ] || { echo 'other-kernel: needs root, to read all that the other kernel shall' >&2; exit 1; }
root=$(python3 tests/cluster/images.py "$name")
release=$(basename "$root"/lib/modules/*)
state=$(mktemp -d /var/tmp/chlaunch-kernel-XXXXXX)
machine=''
trap '[ -z "$machine" ] || kill "$machine" || true; rm -rf "$state"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$state/initramfs/bin" "$state/initramfs/modules" "$state/shared"
[ -e "$root/lib/modules/$release/modules.devname" ] || flock "$root" depmod --basedir "$root" "$release"

# What /init needs: busybox, and modules in the order in which they are loaded. In the overlay over 9p that is the root
# users can make no whiteouts, which ext4 lets them make.
cp /bin/busybox "$state/initramfs/bin"
modprobe --dirname "$root" --set-version "$release" --ignore-install --show-depends --all \
	virtio_pci virtio_blk 9p 9pnet_virtio crc32c_generic ext4 overlay fuse loop squashfs |
	awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
	while read -r module; do
		cp "$module" "$state/initramfs/modules"
		echo "${module##*/}" >>"$state/initramfs/order"
	done
pwd >"$state/initramfs/checkout"
cat >"$state/initramfs/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
set -eu
trap 'echo "other-kernel: /init failed"; poweroff -f' EXIT
mkdir -p /proc /sys /dev /host /disk /root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do insmod "/modules/$module"; done </order
mount -t 9p -o trans=virtio,version=9p2000.L,msize=65536,cache=loose,ro host /host
mount -t ext4 /dev/vda /disk
mkdir -p /disk/upper /disk/work /disk/tmp
chmod 1777 /disk/tmp
mount -t overlay -o lowerdir=/host,upperdir=/disk/upper,workdir=/disk/work overlay /root
for directory in proc sys dev; do mount --move "/$directory" "/root/$directory"; done
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t tmpfs -o mode=1777 tmpfs /root/dev/shm
mount -t tmpfs -o mode=755 tmpfs /root/run
mkdir /disk/checkout
mount --bind "/root$(cat /checkout)" /disk/checkout
for directory in tmp var/tmp; do mount --bind /disk/tmp "/root/$directory"; done
mkdir -p "/root$(cat /checkout)"
mount --move /disk/checkout "/root$(cat /checkout)"
mkdir /root/run/shared
mount -t 9p -o trans=virtio,version=9p2000.L,msize=65536,cache=none shared /root/run/shared
echo 1 >/root/proc/sys/kernel/unprivileged_userns_clone
chmod 666 /root/dev/fuse
hostname other-kernel
ifconfig lo up
trap - EXIT
exec switch_root /root /bin/sh /run/shared/main
INIT
chmod 755 "$state/initramfs/init"
(cd "$state/initramfs" && find . | cpio --quiet --create --format=newc) >"$state/initrd"

cat >"$state/shared/main" <<MAIN
stty -F /dev/ttyS1 raw
exec </dev/null >/dev/ttyS1 2>&1
cd '$(pwd)'
xargs -0 --arg-file=/run/shared/command env -i && touch /run/shared/good
stty -F /dev/ttyS1 raw # once all is written
echo o >/proc/sysrq-trigger
sleep infinity
MAIN
printf '%s\0' HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
	PYTHONDONTWRITEBYTECODE=1 CHLAUNCH_TEST_CACHE=/var/tmp/cache CHLAUNCH_MUST_RUN="${CHLAUNCH_MUST_RUN:-}" \
	PYTEST_ADDOPTS="${PYTEST_ADDOPTS:-}" \
	"$@" >"$state/shared/command"

# What the kernel does against side channels, and that it clears memory, took most of the time. So do larger messages of 9p.
truncate --size=20G "$state/disk"
mkfs.ext4 -q "$state/disk"
timeout 3600 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp "$(nproc)" -m 3G -nodefaults -display none \
	-kernel "$root/boot/vmlinuz-$release" -initrd "$state/initrd" -no-reboot \
	-append 'console=ttyS0 quiet panic=1 mitigations=off init_on_alloc=0' \
	-drive "file=$state/disk,format=raw,if=virtio,cache=unsafe" \
	-virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
	-virtfs "local,path=$state/shared,mount_tag=shared,security_model=none" \
	-serial "file:$state/console" -serial stdio </dev/null &
machine=$!
wait "$machine" || echo "other-kernel: qemu has ended with $?" >&2
machine=''
[ -e "$state/shared/good" ] || { sed 's/^/kernel: /' "$state/console" >&2; exit 1; }
