/*
 * Put the container's root file system together.
 *
 * The new mount calls (open_tree, move_mount, mount_setattr) work on descriptors, keep the flags that an
 * outer user namespace locked, and make a whole tree read-only at once. Where the kernel is too old or an
 * outer sandbox refuses them (ENOSYS, EPERM), each has its mount(2) twin, chosen call by call.
 */
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "cleanup.h"
#include "identity.h"
#include "kernel.h"
#include "points.h"

/* What every container gets from the host, in this order. */
static const struct default_mount {
	const char *path;
	bool required; /* else only where host and image both have it */
} default_mounts[] = {
	{"/dev", true},
	{"/proc", true},
	{"/sys", true},
	{"/etc/hosts", false},
	{"/etc/machine-id", false}, /* D-Bus and some licence managers */
	{"/etc/resolv.conf", false},
	{"/var/lib/hugetlbfs", false},
	{"/etc/opt/cray/wlm_detect", false}, /* Cray: workload manager, network and process manager */
	{"/opt/cray/wlm_detect", false},
	{"/opt/cray/alps", false},
	{"/opt/cray/udreg", false},
	{"/opt/cray/ugni", false},
	{"/opt/cray/xpmem", false},
	{"/var/opt/cray/alps", false},
	{"/var/run/munge", false},    /* Slurm's commands inside */
	{"/var/spool/slurmd", false}, /* PMIx server's rendezvous files and shared memory */
};

/* The call is not there, or an outer seccomp filter or old kernel forbids it: the older call may still do. */
static bool must_fall_back(void)
{
	return errno == ENOSYS || errno == EPERM;
}

static const char *fd_path(char (*buffer)[64], int fd)
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
	if (fd < 0 || mount(fd_path(&from, fd), fd_path(&to, point), NULL, MS_BIND | MS_REC, NULL) < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "%s", source);
	return 0;
}

int mounts_move(int top, int point, const char *shown, struct failure *failure)
{
	char from[64], to[64];

	if (kernel_tree_attach(top, point) == 0)
		return 0;
	if (!must_fall_back() || mount(fd_path(&from, top), fd_path(&to, point), NULL, MS_MOVE, NULL) < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "%s", shown);
	return 0;
}

int mounts_tmpfs(int directory, const char *name, struct failure *failure)
{
	char path[128];
	int top;

	if (name[0] != '.' && mkdirat(directory, name, 0700) < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "tmpfs %s", name);
	snprintf(path, sizeof path, "/proc/self/fd/%d/%s", directory, name);
	if (mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=16m") < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "tmpfs %s", name);
	top = openat(directory, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return top >= 0 ? top : FAIL(failure, FAILURE_MOUNT, errno, "tmpfs %s", name);
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
static int mount_read_only(int top, unsigned flags, const char *shown, struct failure *failure)
{
	char path[64];

	if (kernel_tree_read_only(top, flags) == 0)
		return 0;
	if (!must_fall_back() || mount(NULL, fd_path(&path, top), NULL,
				       MS_REMOUNT | MS_BIND | MS_RDONLY | locked_flags(top), NULL) < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "read-only: %s", shown);
	return 0;
}

/* Attach the image onto itself, so that its top is a mount of its own. */
static int image_attach(struct assembly *assembly, const char *image, struct failure *failure)
{
	CLEANUP_FD int point = open(image, O_PATH | O_CLOEXEC);
	struct stat status;

	if (point < 0)
		return FAIL(failure, errno == ENOENT ? FAILURE_IMAGE_MISSING : FAILURE_IMAGE_UNREADABLE,
			    errno, "%s", image);
	if (fstat(point, &status) < 0 || !S_ISDIR(status.st_mode))
		return FAIL(failure, FAILURE_IMAGE_NOT_DIRECTORY, 0, "%s", image);
	assembly->root = kernel_tree_clone(point, ".");
	if (assembly->root < 0 || kernel_tree_attach(assembly->root, point) < 0) {
		char path[64];

		if (!must_fall_back() ||
		    mount(fd_path(&path, point), fd_path(&path, point), NULL, MS_BIND | MS_REC, NULL) < 0)
			return FAIL(failure, FAILURE_MOUNT, errno, "%s", image);
		assembly->root = open(image, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (assembly->root < 0)
			return FAIL(failure, FAILURE_IMAGE_UNREADABLE, errno, "%s", image);
	}
	return assembly->write ? 0 : mount_read_only(assembly->root, KERNEL_RECURSIVE, image, failure);
}

/* A tmpfs on the image's /dev, which the host's /dev then hides. */
static int staging_attach(struct assembly *assembly, struct failure *failure)
{
	CLEANUP_FD int point = point_open(assembly->root, "/dev");
	char path[64];

	if (point < 0)
		return FAIL(failure, FAILURE_IMAGE_NOT_ROOT, errno, "/dev");
	if (mount("tmpfs", fd_path(&path, point), "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=16m") < 0) {
		const int error = errno;
		struct stat status;

		if (fstat(point, &status) == 0 && !S_ISDIR(status.st_mode))
			return FAIL(failure, FAILURE_BIND_KIND, 0, "/dev");
		return FAIL(failure, FAILURE_MOUNT, error, "tmpfs");
	}
	assembly->staging = point_open(assembly->root, "/dev");
	return assembly->staging >= 0 ? 0 : FAIL(failure, FAILURE_MOUNT, errno, "tmpfs");
}

/* Bind source, whose status is given, onto point. */
static int source_attach(struct assembly *assembly, const char *source, const struct stat *status, int point,
			 struct failure *failure)
{
	if (mounts_bind(AT_FDCWD, source, point, failure) < 0)
		return -1;
	if (S_ISDIR(status->st_mode))
		assembly_cover(assembly, status);
	return 0;
}

static int default_attach(struct assembly *assembly, const struct default_mount *row, struct failure *failure)
{
	struct stat source, target;

	if (stat(row->path, &source) < 0)
		return row->required ? FAIL(failure, FAILURE_BIND_SOURCE, errno, "%s", row->path) : 0;
	CLEANUP_FD int point = point_open(assembly->root, row->path);
	if (point < 0)
		return row->required ? FAIL(failure, FAILURE_IMAGE_NOT_ROOT, errno, "%s", row->path) : 0;
	if (fstat(point, &target) < 0 || S_ISDIR(source.st_mode) != S_ISDIR(target.st_mode))
		return row->required ? FAIL(failure, FAILURE_BIND_KIND, 0, "%s", row->path) : 0;
	return source_attach(assembly, row->path, &source, point, failure);
}

/* Our own text as a file of the container, where the image has one of that name. */
static int text_attach(struct assembly *assembly, const char *path, const char *text, struct failure *failure)
{
	CLEANUP_FD int point = point_open(assembly->root, path);
	const char *name = strrchr(path, '/') + 1;
	const size_t length = strlen(text);
	struct stat status;

	if (point < 0 || fstat(point, &status) < 0 || !S_ISREG(status.st_mode))
		return 0;
	CLEANUP_FD int fd = openat(assembly->staging, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0 || fchmod(fd, 0644) < 0 || write(fd, text, length) != (ssize_t)length)
		return FAIL(failure, FAILURE_MOUNT, errno, "%s", path);
	return mounts_bind(assembly->staging, name, point, failure);
}

static int identity_attach(struct assembly *assembly, const struct container *container,
			   struct failure *failure)
{
	char text[IDENTITY_SIZE];

	if (container->keep_passwd)
		return 0;
	identity_passwd(container, text, sizeof text);
	if (text_attach(assembly, "/etc/passwd", text, failure) < 0)
		return -1;
	identity_group(container, text, sizeof text);
	return text_attach(assembly, "/etc/group", text, failure);
}

static int bind_attach(struct assembly *assembly, const char *source, const char *target,
		       struct failure *failure)
{
	struct stat status;

	if (stat(source, &status) < 0)
		return FAIL(failure, FAILURE_BIND_SOURCE, errno, "%s", source);
	if (target[0] != '/' || target[strspn(target, "/")] == '\0')
		return FAIL(failure, FAILURE_BIND_TARGET, 0, "%s: must be absolute, and not /", target);
	CLEANUP_FD int point = point_make(assembly, target, S_ISDIR(status.st_mode), failure);
	return point < 0 ? -1 : source_attach(assembly, source, &status, point, failure);
}

const char *mounts_source(const struct bind *bind, char *buffer, size_t size)
{
	const char *source = bind->source, *value;
	char name[256];
	size_t length;

	if (!bind->optional || source[0] != '$')
		return source;
	length = strcspn(source + 1, "/");
	snprintf(name, sizeof name, "%.*s", (int)length, source + 1);
	value = getenv(name);
	snprintf(buffer, size, "%s%s", value == NULL ? "" : value, value == NULL ? "" : source + 1 + length);
	return buffer;
}

static int binds_attach(struct assembly *assembly, const struct container *container, struct failure *failure)
{
	for (size_t i = 0; i < container->bind_count; i++) {
		const struct bind *bind = &container->binds[i];
		char buffer[PATH_MAX];
		const char *source = mounts_source(bind, buffer, sizeof buffer);

		if (bind->optional && access(source, F_OK) < 0)
			notice(failure, NOTICE_VERBOSE, "left out, not here: --bind-try=%s", bind->source);
		else if (bind_attach(assembly, source, bind->target == NULL ? source : bind->target,
				     failure) < 0)
			return -1;
	}
	return 0;
}

static int home_attach(struct assembly *assembly, const struct container *container, struct failure *failure)
{
	char target[PATH_MAX];

	if (!container->home)
		return 0;
	if (getenv("HOME") == NULL)
		return FAIL(failure, FAILURE_HOME_UNSET, 0, "--home");
	snprintf(target, sizeof target, "/home/%s", identity_user());
	return bind_attach(assembly, getenv("HOME"), target, failure);
}

const char *mounts_tmp(void)
{
	const char *source = getenv("TMPDIR");

	return source == NULL || source[0] == '\0' ? "/tmp" : source;
}

static int tmp_attach(struct assembly *assembly, struct failure *failure)
{
	const char *source = mounts_tmp();
	struct stat status;

	if (stat(source, &status) < 0 || !S_ISDIR(status.st_mode)) {
		notice(failure, NOTICE_WARNING, "$TMPDIR is no directory here, /tmp is used: %s", source);
		source = "/tmp";
	}
	return bind_attach(assembly, source, "/tmp", failure);
}

/* Make the current directory the root, and let go of the old one. */
static int root_change(struct failure *failure)
{
	if (syscall(SYS_pivot_root, ".", ".") == 0) {
		if (umount2(".", MNT_DETACH) < 0)
			return FAIL(failure, FAILURE_MOUNT, errno, "umount old root");
	} else if (errno ==
		   EINVAL) { /* the initial root file system of a diskless node can't be pivoted away */
		if (mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0)
			return FAIL(failure, FAILURE_MOUNT, errno, "new root");
	} else {
		return FAIL(failure, FAILURE_MOUNT, errno, "pivot_root");
	}
	return chdir("/") == 0 ? 0 : FAIL(failure, FAILURE_MOUNT, errno, "/");
}

static int underlays_finish(struct assembly *assembly, struct failure *failure)
{
	for (size_t i = 0; i < assembly->underlay_count; i++)
		if (mount_read_only(assembly->underlays[i], 0, "tmpfs", failure) < 0)
			return -1;
	return 0;
}

int mounts_build(const struct container *container, struct failure *failure)
{
	struct assembly assembly = {.root = -1, .staging = -1, .write = container->write};

	if (image_attach(&assembly, container->image, failure) < 0 ||
	    staging_attach(&assembly, failure) < 0 || identity_attach(&assembly, container, failure) < 0)
		return -1;
	for (size_t i = 0; i < sizeof default_mounts / sizeof *default_mounts; i++)
		if (default_attach(&assembly, &default_mounts[i], failure) < 0)
			return -1;
	if (tmp_attach(&assembly, failure) < 0 || home_attach(&assembly, container, failure) < 0 ||
	    binds_attach(&assembly, container, failure) < 0 || underlays_finish(&assembly, failure) < 0)
		return -1;
	if (fchdir(assembly.root) < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "new root");
	return root_change(failure);
}
