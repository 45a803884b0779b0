/*
 * Overlays. User namespaces may mount them since Linux 5.11, with userxattr. Layers as lower directories make
 * ch-image's images; an upper directory in a tmpfs makes any image writable for as long as the container
 * lives.
 *
 * A rank's own overlay lies on top of the shared container, which stays whole below it: root directory, then
 * tmpfs, then overlay, all mounted on "/". So a rank that comes later can enter any rank's mount namespace,
 * take a copy, and remove those two from it.
 */
#include "overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "mounts.h"
#include "namespaces.h"

enum {
	OPTIONS_MOST = 4095, /* mount(2) reads one page */
	ENCODED_MOST = 4 * PATH_MAX,
	SHOWN_MOST = 200, /* directories: their words are at most 18 characters each */
};

static int overlay_mount(const char *target, unsigned long flags, const char *options, const char *shown,
			 struct failure *failure)
{
	if (mount("chlaunch", target, "overlay", flags | MS_NODEV, options) == 0)
		return 0;
	return FAIL(failure, errno == EPERM || errno == ENODEV ? FAILURE_OVERLAY_DENIED : FAILURE_OVERLAY,
		    errno, "%s", shown);
}

/* An overlay whose options name layers, relative to storage. */
static int layers_mount(int store, const char *point, unsigned long flags, const char *options,
			const char *shown, struct failure *failure)
{
	CLEANUP_FD int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	char path[64];
	int result;

	if (strlen(options) > OPTIONS_MOST)
		return FAIL(failure, FAILURE_STORE, 0, "%s: too many layers for one mount", shown);
	if (here < 0 || chdir(mounts_fd_path(&path, store)) < 0)
		return FAIL(failure, FAILURE_STORE, errno, "%s", shown);
	result = overlay_mount(point, flags, options, shown, failure);
	if (fchdir(here) < 0 && result == 0)
		return FAIL(failure, FAILURE_SYSTEM, errno, "working directory");
	return result;
}

int overlay_layers(int store, int image, const char *lower, const char *shown, struct failure *failure)
{
	char options[LOWER_MOST + 64], point[64], there[PATH_MAX];
	const ssize_t length = readlink(mounts_fd_path(&point, image), there, sizeof there - 1);
	int top, result;

	if (length < 0)
		return FAIL(failure, FAILURE_STORE, errno, "%s", shown);
	there[length] = '\0';
	if (strchr(lower, ':') != NULL) {
		snprintf(options, sizeof options, "userxattr,lowerdir=%s", lower);
		result = layers_mount(store, point, MS_RDONLY, options, shown, failure);
	} else {
		/* An overlay without an upper directory wants two below. One layer is a directory like any.
		 */
		CLEANUP_FD int layer = openat(store, lower, O_PATH | O_DIRECTORY | O_CLOEXEC);

		result = layer < 0 ? FAIL(failure, FAILURE_STORE, errno, "%s: layer %s", shown, lower)
				   : mounts_bind(layer, ".", image, failure);
	}
	if (result < 0)
		return -1;
	/* Only a walk by name crosses onto what was mounted there. */
	top = open(there, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return top >= 0 ? top : FAIL(failure, FAILURE_STORE, errno, "%s", shown);
}

/* The words of an overlay with its upper and work directories in the directory given; where they are new, its
 * root directory will look like the one at path like. */
static int writable_options(int directory, const char *lower, const char *like, char *options, size_t size,
			    struct failure *failure)
{
	const bool is_new = mkdirat(directory, "upper", 0755) == 0;
	struct stat status;

	if ((!is_new && errno != EEXIST) || (mkdirat(directory, "work", 0755) < 0 && errno != EEXIST) ||
	    stat(like, &status) < 0 ||
	    (is_new && fchmodat(directory, "upper", status.st_mode & 07777, 0) < 0))
		return FAIL(failure, FAILURE_OVERLAY, errno, "the directory that takes what is written");
	snprintf(options, size,
		 "userxattr,upperdir=/proc/self/fd/%d/upper,workdir=/proc/self/fd/%d/work,lowerdir=%s",
		 directory, directory, lower);
	return 0;
}

/* The directory that takes what is written. It is opened in this mount namespace: an overlay takes no
 * other's. */
static int writable_open(struct assembly *assembly, const struct container *container,
			 struct failure *failure)
{
	int directory;

	if (container->write_to == NULL)
		return mounts_tmpfs(assembly->staging, "fake", container->write_fake, failure);
	directory = open(container->write_to, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return directory >= 0 ? directory
			      : FAIL(failure, FAILURE_OVERLAY, errno, "--write-to=%s", container->write_to);
}

int overlay_attach(struct assembly *assembly, const struct container *container, int store,
		   const char *layers, struct failure *failure)
{
	const char *shown = container->write_to != NULL ? "--write-to" : "--write-fake";
	CLEANUP_FD int directory = writable_open(assembly, container, failure);
	char like[64], point[64], options[LOWER_MOST + 128];
	int top;

	if (directory < 0)
		return -1;
	if (mkdirat(assembly->staging, "overlay", 0755) < 0)
		return FAIL(failure, FAILURE_OVERLAY, errno, "tmpfs");
	snprintf(point, sizeof point, "/proc/self/fd/%d/overlay", assembly->staging);
	mounts_fd_path(&like, assembly->root);
	/* Layers go into this overlay themselves: the kernel piles no more than two upon each other. */
	if (writable_options(directory, layers == NULL ? like : layers, like, options, sizeof options,
			     failure) < 0 ||
	    (layers == NULL ? overlay_mount(point, 0, options, shown, failure)
			    : layers_mount(store, point, 0, options, shown, failure)) < 0)
		return -1;
	top = openat(assembly->staging, "overlay", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (top < 0)
		return FAIL(failure, FAILURE_OVERLAY, errno, "%s", shown);
	assembly->root = top;
	assembly->write = true;
	return 0;
}

/* Open directories, DIR[:DIR...], into fds; how many, or -1. */
static int directories_open(const char *directories, int *fds, struct failure *failure)
{
	char path[PATH_MAX];
	int count = 0;

	for (const char *from = directories; from != NULL; count++) {
		const size_t length = strcspn(from, ":");

		snprintf(path, sizeof path, "%.*s", (int)length, from);
		if (count == SHOWN_MOST)
			return FAIL(failure, FAILURE_OVERLAY, E2BIG, "%s", directories);
		fds[count] = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fds[count] < 0)
			return FAIL(failure, FAILURE_BIND_SOURCE, errno, "%s", path);
		from = from[length] == '\0' ? NULL : from + length + 1;
	}
	return count;
}

/* An empty directory, for an overlay without an upper directory wants two below. */
static int directory_empty(const struct assembly *assembly, struct failure *failure)
{
	int fd = -1;

	if (assembly->staging < 0)
		return FAIL(failure, FAILURE_IMAGE_HOST, 0, "--bind-layers with one directory");
	if (mkdirat(assembly->staging, "empty", 0755) == 0 || errno == EEXIST)
		fd = openat(assembly->staging, "empty", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd >= 0 ? fd : FAIL(failure, FAILURE_OVERLAY, errno, "tmpfs");
}

int overlay_show(struct assembly *assembly, const char *directories, int point, const char *shown,
		 struct failure *failure)
{
	char options[OPTIONS_MOST] = "userxattr,lowerdir=", target[64];
	int fds[SHOWN_MOST + 1], count = 0, result = -1;

	for (size_t i = 0; i <= SHOWN_MOST; i++)
		fds[i] = -1;
	count = directories_open(directories, fds, failure);
	if (count == 1 && (fds[count++] = directory_empty(assembly, failure)) < 0)
		count = -1;
	for (int i = 0; i < count; i++) /* by descriptors: a path may have any character */
		snprintf(options + strlen(options), sizeof options - strlen(options), "%s/proc/self/fd/%d",
			 i == 0 ? "" : ":", fds[i]);
	if (count > 0)
		result = overlay_mount(mounts_fd_path(&target, point), MS_RDONLY, options, shown, failure);
	for (size_t i = 0; i <= SHOWN_MOST; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return result;
}

/* A line of /proc/self/mountinfo, proc_pid_mountinfo(5). */
struct submount {
	int id, parent;
	char path[ENCODED_MOST];
};

/* "\040" and its like stand for characters that would end a field. */
static void field_decode(char *text)
{
	char *to = text;

	for (const char *from = text; *from != '\0'; from++, to++) {
		*to = *from;
		if (from[0] == '\\' && strspn(from + 1, "01234567") >= 3) {
			*to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
			from += 3;
		}
	}
	*to = '\0';
}

/* The mounts of this namespace as text, before more are made: what is read is the state of the reading. */
static char *submounts_read(struct failure *failure)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char *text = NULL;
	size_t size = 0;

	if (file == NULL || getdelim(&text, &size, '\0', file) < 0)
		FAIL(failure, FAILURE_OVERLAY, errno, "/proc/self/mountinfo");
	if (file != NULL)
		fclose(file);
	return text;
}

static bool submount_parse(const char *line, struct submount *mount)
{
	/* ENCODED_MOST - 1 */
	if (sscanf(line, "%d %d %*s %*s %16383s", &mount->id, &mount->parent, mount->path) != 3)
		return false;
	field_decode(mount->path);
	return true;
}

/* The ID of the mount that is the root directory; -1. */
static int root_id(const char *text)
{
	struct submount mount;

	for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (submount_parse(line, &mount) && strcmp(mount.path, "/") == 0)
			return mount.id;
	}
	return -1;
}

/* Show what is mounted on path, with all below it, at the same place of the overlay. */
static int submount_repeat(struct assembly *overlay, const char *path, struct failure *failure)
{
	struct stat status;

	if (stat(path, &status) < 0)
		return 0; /* of a server that has died, or removed since */
	CLEANUP_FD int point = point_make(overlay, path, S_ISDIR(status.st_mode), failure);
	return point < 0 ? -1 : mounts_bind(AT_FDCWD, path, point, failure);
}

/* Mounts on the root directory are the container's own; what is on them comes with them. */
static int submounts_repeat(struct assembly *overlay, const char *text, struct failure *failure)
{
	const int root = root_id(text);
	struct submount mount;

	for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (submount_parse(line, &mount) && mount.parent == root && mount.id != root &&
		    submount_repeat(overlay, mount.path, failure) < 0)
			return -1;
	}
	return 0;
}

/* In a copy of another rank's mount namespace: remove its overlay and its tmpfs from the root directory. */
static int private_remove(struct failure *failure)
{
	CLEANUP_FD int own = -1;

	if (namespace_mount_make(failure) < 0)
		return -1;
	own = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	for (int i = 0; i < 2; i++) {
		/* Entering one's own namespace leads to what is on top of its root directory now. */
		if (own < 0 || umount2("/", MNT_DETACH) < 0 || setns(own, CLONE_NEWNS) < 0)
			return FAIL(failure, FAILURE_OVERLAY, errno, "another rank's");
	}
	return 0;
}

int overlay_private(const struct container *container, bool first, struct failure *failure)
{
	struct assembly overlay = {.root = -1, .staging = -1, .write = true};
	CLEANUP_FREE char *mounts = NULL;
	char options[256];
	int result;

	if (!first && private_remove(failure) < 0)
		return -1;
	mounts = submounts_read(failure);
	if (mounts == NULL)
		return -1;
	CLEANUP_FD int tmpfs = mounts_tmpfs_on_root(container->write_fake, failure);
	if (tmpfs < 0 || writable_options(tmpfs, "/", "/", options, sizeof options, failure) < 0 ||
	    overlay_mount("/", 0, options, "--write-fake", failure) < 0)
		return -1;
	overlay.root = open("/..", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (overlay.root < 0)
		return FAIL(failure, FAILURE_OVERLAY, errno, "--write-fake");
	result = submounts_repeat(&overlay, mounts, failure);
	if (result == 0 && (fchdir(overlay.root) < 0 || chroot(".") < 0))
		result = FAIL(failure, FAILURE_OVERLAY, errno, "--write-fake");
	close(overlay.root);
	return result;
}
