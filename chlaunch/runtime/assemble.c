/*
 * Put the container's root file system together: what every container has, what this one has, and the change
 * of root. How mounts are made is mounts.c's.
 */
#include "assemble.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "binds.h"
#include "cleanup.h"
#include "identity.h"
#include "kernel.h"
#include "ld_cache.h"
#include "mounts.h"
#include "overlay.h"
#include "points.h"

#define X11_SOCKETS "/tmp/.X11-unix"

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

/* A tmpfs on the image's /dev, which the host's /dev then hides. */
static int staging_attach(struct assembly *assembly, struct failure *failure)
{
	CLEANUP_FD int point = point_open(assembly->root, "/dev");
	struct stat status;
	char path[64];

	if (point < 0 || fstat(point, &status) < 0)
		return FAIL(failure, FAILURE_IMAGE_NOT_ROOT, errno, "/dev");
	if (!S_ISDIR(status.st_mode))
		return FAIL(failure, FAILURE_BIND_KIND, 0, "/dev");
	if (mounts_tmpfs_at(mounts_fd_path(&path, point), NULL, failure) < 0)
		return -1;
	assembly->staging = point_open(assembly->root, "/dev");
	return assembly->staging >= 0 ? 0 : FAIL(failure, FAILURE_MOUNT, errno, "tmpfs");
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
	return bind_onto(assembly, row->path, &source, point, failure);
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

static int home_attach(struct assembly *assembly, const struct container *container, struct failure *failure)
{
	char target[PATH_MAX];

	if (!container->home)
		return 0;
	if (getenv("HOME") == NULL)
		return FAIL(failure, FAILURE_HOME_UNSET, 0, "--home");
	snprintf(target, sizeof target, "/home/%s", identity_user());
	return bind_attach(assembly, getenv("HOME"), target, false, failure);
}

const char *tmp_source(void)
{
	const char *source = getenv("TMPDIR");

	return source == NULL || source[0] == '\0' ? "/tmp" : source;
}

/* An empty /tmp; X clients find their server's socket all the same. */
static int tmp_private(struct assembly *assembly, struct failure *failure)
{
	CLEANUP_FD int top = tmpfs_attach(assembly, "/tmp", NULL, failure);

	if (top < 0)
		return -1;
	if (getenv("DISPLAY") != NULL && access(X11_SOCKETS, F_OK) == 0) {
		CLEANUP_FD int sockets = mkdirat(top, strrchr(X11_SOCKETS, '/') + 1, 01777) < 0
						 ? -1
						 : point_open(assembly->root, X11_SOCKETS);

		if (sockets < 0 || mounts_bind(AT_FDCWD, X11_SOCKETS, sockets, failure) < 0)
			return FAIL(failure, FAILURE_MOUNT, errno, X11_SOCKETS);
	}
	return 0;
}

static int tmp_attach(struct assembly *assembly, const struct container *container, struct failure *failure)
{
	const char *source = tmp_source();
	struct stat status;

	if (container->keep_tmp)
		return 0;
	if (container->private_tmp)
		return tmp_private(assembly, failure);
	if (stat(source, &status) < 0 || !S_ISDIR(status.st_mode)) {
		notice(failure, NOTICE_WARNING, "$TMPDIR is no directory here, /tmp is used: %s", source);
		source = "/tmp";
	}
	return bind_attach(assembly, source, "/tmp", false, failure);
}

static const char *xauthority(char *buffer, size_t size)
{
	const char *file = getenv("XAUTHORITY"), *home = getenv("HOME");

	if (getenv("DISPLAY") == NULL || (file == NULL && home == NULL))
		return NULL;
	if (file == NULL) {
		snprintf(buffer, size, "%s/.Xauthority", home);
		file = buffer;
	}
	return file[0] == '/' && access(file, R_OK) == 0 ? file : NULL;
}

/* The key to the user's X display, at its own path. An X client without it says so; nobody else misses it. */
static void xauthority_attach(struct assembly *assembly)
{
	char buffer[PATH_MAX];
	const char *file = xauthority(buffer, sizeof buffer);
	struct failure ignored = {.notice = NULL};
	int there;

	if (file == NULL)
		return;
	there = point_open(assembly->root, file);
	if (there >= 0)
		close(there); /* with the home directory, or below /tmp */
	else if (bind_attach(assembly, file, file, true, &ignored) < 0)
		return;
}

/* Make the current directory the root, and let go of the old one. */
static int root_change(bool covered, struct failure *failure)
{
	if (syscall(SYS_pivot_root, ".", ".") == 0) {
		/* What was mounted on the old root, below ours, goes first. */
		if ((covered && umount2(".", MNT_DETACH) < 0) || umount2(".", MNT_DETACH) < 0)
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
		if (mounts_read_only(assembly->underlays[i], 0, "tmpfs", failure) < 0)
			return -1;
	return 0;
}

/* What an image says of itself, where that is apart from its files. */
static int metadata_attach(struct assembly *assembly, int metadata, struct failure *failure)
{
	char source[64];

	snprintf(source, sizeof source, "/proc/self/fd/%d/ch", metadata);
	return metadata < 0 || access(source, F_OK) < 0 ? 0
							: bind_attach(assembly, source, "/ch", true, failure);
}

/* The image as it is, or below what catches writing. */
static int root_attach(struct assembly *assembly, struct image *image, const struct container *container,
		       int *top, struct failure *failure)
{
	if (image_attach(image, container, assembly, failure) < 0)
		return -1;
	*top = assembly->root;
	if (!container->write &&
	    mounts_read_only(assembly->root, KERNEL_RECURSIVE, container->image, failure) < 0)
		return -1;
	if (staging_attach(assembly, failure) < 0 || metadata_attach(assembly, image->metadata, failure) < 0)
		return -1;
	if (container->write_fake == NULL && container->write_to == NULL)
		return 0;
	return overlay_attach(assembly, container, image->store,
			      image->kind == IMAGE_LAYERS ? image->layers : NULL, failure);
}

static int defaults_attach(struct assembly *assembly, struct failure *failure)
{
	for (size_t i = 0; i < sizeof default_mounts / sizeof *default_mounts; i++)
		if (default_attach(assembly, &default_mounts[i], failure) < 0)
			return -1;
	return 0;
}

/* The host's own root directory: what the binds need and no more. */
static int host_build(struct assembly *assembly, const struct container *container, struct failure *failure)
{
	struct stat status;

	if (container->write_fake != NULL || container->write_to != NULL)
		return FAIL(failure, FAILURE_IMAGE_HOST, 0, "%s",
			    container->write_to != NULL ? "--write-to" : "--write-fake");
	if (stat("/", &status) < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "/");
	assembly_cover(assembly, &status); /* nothing is made in it */
	return binds_attach(assembly, container, failure);
}

int assemble(const struct container *container, struct image *image, struct failure *failure)
{
	struct assembly assembly = {.root = -1, .staging = -1, .write = container->write};
	int top;

	if (image->kind == IMAGE_HOST)
		return image_attach(image, container, &assembly, failure) < 0
			       ? -1
			       : host_build(&assembly, container, failure);
	if (root_attach(&assembly, image, container, &top, failure) < 0 ||
	    identity_attach(&assembly, container, failure) < 0 || defaults_attach(&assembly, failure) < 0 ||
	    tmp_attach(&assembly, container, failure) < 0 || home_attach(&assembly, container, failure) < 0 ||
	    binds_attach(&assembly, container, failure) < 0)
		return -1;
	xauthority_attach(&assembly);
	if (ld_cache_attach(&assembly, container, failure) < 0 || underlays_finish(&assembly, failure) < 0)
		return -1;
	if (fchdir(assembly.root) < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "new root");
	return root_change(image->kind == IMAGE_FILE && assembly.root != top, failure);
}
