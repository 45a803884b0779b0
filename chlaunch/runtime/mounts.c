/*
 * Mounts, made.
 *
 * The new mount calls (open_tree, move_mount, mount_setattr) work on descriptors, keep the flags that an
 * outer user namespace locked, and make a whole tree read-only at once. Where the kernel is too old or an
 * outer sandbox refuses them (ENOSYS, EPERM), each has its mount(2) twin, chosen call by call.
 */
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "cleanup.h"
#include "kernel.h"

static const char OWN_SIZE[] = "16m"; /* of a tmpfs that holds files of ours, and mount points */

/* The call is not there, or an outer seccomp filter or old kernel forbids it: the older call may still do. */
static bool must_fall_back(void)
{
	return errno == ENOSYS || errno == EPERM;
}

const char *mounts_fd_path(char (*buffer)[64], int fd)
{
	snprintf(*buffer, sizeof *buffer, "/proc/self/fd/%d", fd);
	return *buffer;
}

int mounts_bind(int directory, const char *source, int point, struct failure *failure)
{
	CLEANUP_FD int tree = kernel_tree_clone(directory, source);
	char from[64], to[64];

	if (tree >= 0 && kernel_tree_attach(tree, point) == 0)
		return 0;
	if (!must_fall_back())
		return FAIL(failure, FAILURE_MOUNT, errno, "%s", source);
	CLEANUP_FD int fd = openat(directory, source, O_PATH | O_CLOEXEC);
	if (fd < 0 ||
	    mount(mounts_fd_path(&from, fd), mounts_fd_path(&to, point), NULL, MS_BIND | MS_REC, NULL) < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "%s", source);
	return 0;
}

int mounts_move(int top, int point, const char *shown, struct failure *failure)
{
	char from[64], to[64];

	if (kernel_tree_attach(top, point) == 0)
		return 0;
	if (!must_fall_back() ||
	    mount(mounts_fd_path(&from, top), mounts_fd_path(&to, point), NULL, MS_MOVE, NULL) < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "%s", shown);
	return 0;
}

int mounts_tmpfs_at(const char *target, const char *size, struct failure *failure)
{
	char options[128];

	snprintf(options, sizeof options, "mode=0755,size=%s", size == NULL ? OWN_SIZE : size);
	if (mount(MOUNTS_OWN, target, "tmpfs", MS_NOSUID | MS_NODEV, options) == 0)
		return 0;
	return FAIL(failure, errno == EINVAL && size != NULL ? FAILURE_TMPFS_SIZE : FAILURE_MOUNT, errno,
		    "tmpfs, %s", options);
}

int mounts_tmpfs(int directory, const char *name, const char *size, struct failure *failure)
{
	char path[128];
	int top;

	if (mkdirat(directory, name, 0700) < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "tmpfs %s", name);
	snprintf(path, sizeof path, "/proc/self/fd/%d/%s", directory, name);
	if (mounts_tmpfs_at(path, size, failure) < 0)
		return -1;
	top = openat(directory, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return top >= 0 ? top : FAIL(failure, FAILURE_MOUNT, errno, "tmpfs %s", name);
}

int mounts_tmpfs_on_root(const char *size, struct failure *failure)
{
	int top;

	if (mounts_tmpfs_at("/", size, failure) < 0)
		return -1;
	top = open("/..", O_PATH | O_DIRECTORY | O_CLOEXEC); /* "/" would not lead onto it */
	return top >= 0 ? top : FAIL(failure, FAILURE_MOUNT, errno, "tmpfs");
}

/* Flags that a re-mount must repeat: a user namespace may not drop those its parent set
 * (mount_namespaces(7)). */
static unsigned long locked_flags(int fd)
{
	static const struct {
		unsigned long seen, flag;
	} flags[] = {
		{ST_NOSUID, MS_NOSUID},	  {ST_NODEV, MS_NODEV},		  {ST_NOEXEC, MS_NOEXEC},
		{ST_NOATIME, MS_NOATIME}, {ST_NODIRATIME, MS_NODIRATIME}, {ST_RELATIME, MS_RELATIME},
	};
	struct statvfs status;
	unsigned long locked = 0;

	if (fstatvfs(fd, &status) < 0)
		return 0;
	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
		if (status.f_flag & flags[i].seen)
			locked |= flags[i].flag;
	return locked;
}

/* mount(2) can re-mount one mount at a time: mounts inside the image keep their flags there. */
int mounts_read_only(int top, unsigned flags, const char *shown, struct failure *failure)
{
	char path[64];

	if (kernel_tree_read_only(top, flags) == 0)
		return 0;
	if (!must_fall_back() || mount(NULL, mounts_fd_path(&path, top), NULL,
				       MS_REMOUNT | MS_BIND | MS_RDONLY | locked_flags(top), NULL) < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "read-only: %s", shown);
	return 0;
}
