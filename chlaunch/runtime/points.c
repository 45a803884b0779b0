/*
 * Mount points inside the tree being put together.
 *
 * An image is not ours to change, and an unprivileged user often can't. So a directory that lacks a mount
 * point is covered by a small tmpfs in which its own entries are bound one by one, and the missing name is
 * made there. Unlike an overlay this works on every kernel and on every file system, and leaves the files'
 * own file system in view.
 */
#include "points.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "kernel.h"
#include "mounts.h"

enum {
	ENTRIES_MOST = 512, /* entries of a covered directory: each is a mount */
	LINKS_MOST = 16,
	TRIES_MOST = 64,
};

/* Before openat2 (Linux 5.6): go there with chroot(2), which our user namespace allows, look, and come back.
 */
static int point_open_chroot(int root, const char *path)
{
	CLEANUP_FD int host = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	CLEANUP_FD int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd = -1, error;

	if (host < 0 || here < 0 || fchdir(root) < 0)
		return -1;
	if (chroot(".") == 0)
		fd = open(path, O_PATH | O_CLOEXEC);
	error = errno;
	if (fchdir(host) < 0 || chroot(".") < 0 || fchdir(here) < 0)
		return -1;
	errno = error;
	return fd;
}

int point_open(int root, const char *path)
{
	for (int i = 0; i < TRIES_MOST; i++) {
		const int fd = kernel_open_in_root(root, path);

		if (fd >= 0 || (errno != EAGAIN && errno != ENOSYS && errno != EPERM))
			return fd;
		if (errno != EAGAIN) /* EAGAIN: a rename or mount anywhere while ".." was resolved */
			break;
	}
	return point_open_chroot(root, path);
}

int point_mount_id(int fd)
{
	char path[64], text[512];
	const char *line;
	ssize_t length;

	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	CLEANUP_FD int info = open(path, O_RDONLY | O_CLOEXEC);
	if (info < 0 || (length = read(info, text, sizeof text - 1)) < 0)
		return -1;
	text[length] = '\0';
	line = strstr(text, "mnt_id:");
	return line == NULL ? -1 : atoi(line + strlen("mnt_id:"));
}

static int underlay_entry(int directory, int top, const char *name, struct failure *failure)
{
	char link[PATH_MAX];
	struct stat status;
	ssize_t length;

	if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : FAIL(failure, FAILURE_MOUNT, errno, "%s", name);
	if (S_ISLNK(status.st_mode)) {
		length = readlinkat(directory, name, link, sizeof link - 1);
		link[length < 0 ? 0 : length] = '\0';
		return length < 0 || symlinkat(link, top, name) < 0
			       ? FAIL(failure, FAILURE_MOUNT, errno, "%s", name)
			       : 0;
	}
	if (S_ISDIR(status.st_mode) ? mkdirat(top, name, 0755) < 0
				    : mknodat(top, name, S_IFREG | 0644, 0) < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "%s", name);
	CLEANUP_FD int point = openat(top, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (point < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "%s", name);
	return mounts_bind(directory, name, point, failure);
}

/* Bind every entry of directory at the same name below top. */
static int underlay_fill(int directory, int top, const char *shown, struct failure *failure)
{
	const int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	int count = 0, result = 0;

	if (stream == NULL)
		return FAIL(failure, FAILURE_BIND_TARGET, errno, "%s", shown);
	while (result == 0 && (entry = readdir(stream)) != NULL) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (++count > ENTRIES_MOST)
			result = FAIL(failure, FAILURE_BIND_CROWDED, 0, "%s", shown);
		else
			result = underlay_entry(directory, top, entry->d_name, failure);
	}
	closedir(stream);
	return result;
}

/* Cover the image's directory with a tmpfs that holds the same entries. Its top, or -1. */
static int underlay_make(struct assembly *assembly, int directory, bool is_root, const char *shown,
			 struct failure *failure)
{
	const size_t number = assembly->underlay_count;
	struct stat status;
	char name[32];
	int top;

	if (number == UNDERLAYS_MOST)
		return FAIL(failure, FAILURE_BIND_CROWDED, 0, "%s", shown);
	snprintf(name, sizeof name, "underlay%zu", number);
	top = mounts_tmpfs(assembly->staging, name, failure);
	if (top < 0)
		return -1;
	assembly->underlays[number] = top;
	assembly->underlay_mounts[number] = point_mount_id(top);
	assembly->underlay_count++;
	if (fstat(directory, &status) < 0 || fchmodat(top, ".", status.st_mode & 07777, 0) < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "%s", shown);
	if (underlay_fill(directory, top, shown, failure) < 0 ||
	    mounts_move(top, directory, shown, failure) < 0)
		return -1;
	if (is_root)
		assembly->root = top;
	return top;
}

/* A descriptor in which names may be made in place of directory: itself, or its underlay; -1. */
static int place_writable(struct assembly *assembly, int directory, bool is_root, const char *shown,
			  struct failure *failure)
{
	const int mount = point_mount_id(directory);

	for (size_t i = 0; i < assembly->underlay_count; i++)
		if (mount == assembly->underlay_mounts[i])
			return directory;
	if (mount != assembly->image_mount)
		return FAIL(failure, FAILURE_BIND_INSIDE, 0, "%s", shown);
	if (assembly->write)
		return directory;
	return underlay_make(assembly, directory, is_root, shown, failure);
}

/* Make the path rest (no links in it, nothing of it exists) below directory; O_PATH descriptor of its end. */
static int names_make(int directory, char *rest, bool want_directory, const char *shown,
		      struct failure *failure)
{
	CLEANUP_FD int last = -1;
	char *next;

	for (char *name = rest; name != NULL; name = next) {
		next = strchr(name, '/');
		while (next != NULL && *next == '/')
			*next++ = '\0';
		if (next != NULL && *next == '\0')
			next = NULL;
		if (strcmp(name, "..") == 0)
			return FAIL(failure, FAILURE_BIND_TARGET, 0,
				    "%s: '..' below a directory that does not exist", shown);
		if (next != NULL || want_directory ? mkdirat(directory, name, 0755) < 0 && errno != EEXIST
						   : mknodat(directory, name, S_IFREG | 0644, 0) < 0)
			return FAIL(failure, FAILURE_BIND_TARGET, errno, "%s", shown);
		const int fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return FAIL(failure, FAILURE_BIND_TARGET, errno, "%s", shown);
		if (last >= 0)
			close(last);
		last = directory = fd;
	}
	directory = last;
	last = -1;
	return directory;
}

/*
 * Split path where its existing part ends: *directory is the last directory that exists, *rest what is
 * missing below it (a pointer into path, which is rewritten where it leads over a dangling link).
 */
static int path_split(int root, char *path, int *directory, char **rest, bool *is_root, const char *shown,
		      struct failure *failure)
{
	char link[PATH_MAX], joined[3 * PATH_MAX];
	char *end = path + strspn(path, "/");
	ssize_t length;
	int links = 0, fd;

	*directory = point_open(root, "/");
	*is_root = true;
	*rest = end;
	while (*directory >= 0) {
		const size_t size = strcspn(end, "/");
		const char saved = end[size];

		end[size] = '\0';
		fd = point_open(root, path);
		if (fd < 0 && errno != ENOENT)
			break;
		length = fd < 0 ? readlinkat(*directory, end, link, sizeof link - 1) : -1;
		end[size] = saved;
		if (fd < 0 && length < 0)
			return 0; /* missing, and no link: here it is */
		if (fd >= 0) {
			close(*directory);
			*directory = fd;
			*is_root = false;
			end += size + strspn(end + size, "/");
		} else { /* a dangling link: go on with what it says */
			const int before = link[0] == '/' ? 0 : (int)(end - path);

			link[length] = '\0';
			snprintf(joined, sizeof joined, "%.*s%s%s", before, path, link, end + size);
			if (++links > LINKS_MOST || strlen(joined) >= PATH_MAX) {
				errno = ELOOP;
				break;
			}
			strcpy(path, joined);
			close(*directory);
			*directory = point_open(root, "/");
			*is_root = true;
			end = path + strspn(path, "/");
		}
		*rest = end;
	}
	return FAIL(failure, FAILURE_BIND_TARGET, errno, "%s", shown);
}

int point_make(struct assembly *assembly, const char *path, bool want_directory, struct failure *failure)
{
	CLEANUP_FD int directory = -1;
	char copy[PATH_MAX], *rest;
	struct stat status;
	bool is_root;
	int place, fd = point_open(assembly->root, path);

	if (fd >= 0) {
		if (fstat(fd, &status) < 0 || S_ISDIR(status.st_mode) != want_directory) {
			close(fd);
			return FAIL(failure, FAILURE_BIND_KIND, 0, "%s", path);
		}
		return fd;
	}
	if (errno != ENOENT || strlen(path) >= sizeof copy)
		return FAIL(failure, FAILURE_BIND_TARGET, errno, "%s", path);
	strcpy(copy, path);
	if (path_split(assembly->root, copy, &directory, &rest, &is_root, path, failure) < 0)
		return -1;
	place = place_writable(assembly, directory, is_root, path, failure);
	return place < 0 ? -1 : names_make(place, rest, want_directory, path, failure);
}
