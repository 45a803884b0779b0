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

void assembly_cover(struct assembly *assembly, const struct stat *status)
{
	struct cover *covers = reallocarray(assembly->covers, assembly->cover_count + 1, sizeof *covers);

	if (covers == NULL)
		return; /* its destinations below would be refused by mkdir(2) instead */
	assembly->covers = covers;
	covers[assembly->cover_count++] = (struct cover){status->st_dev, status->st_ino};
}

void assembly_memory(struct assembly *assembly, const struct stat *status)
{
	dev_t *memory = reallocarray(assembly->memory, assembly->memory_count + 1, sizeof *memory);

	if (memory == NULL)
		return; /* its destinations below get a tmpfs of their own */
	assembly->memory = memory;
	memory[assembly->memory_count++] = status->st_dev;
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
	top = mounts_tmpfs(assembly->staging, name, NULL, failure);
	if (top < 0)
		return -1;
	assembly->underlays[assembly->underlay_count++] = top;
	if (fstat(directory, &status) < 0 || fchmodat(top, ".", status.st_mode & 07777, 0) < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "%s", shown);
	if (underlay_fill(directory, top, shown, failure) < 0 ||
	    mounts_move(top, directory, shown, failure) < 0)
		return -1;
	if (is_root)
		assembly->root = top;
	return top;
}

static bool same_file(const struct stat *one, const struct stat *other)
{
	return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

/* Where a walk through the container's tree has come to. */
struct walk {
	int directory;		 /* the last that exists */
	struct stat status;	 /* of it */
	char *rest;		 /* what is missing below it */
	bool inside;		 /* it is below a bind: the host's, not the image's */
	char path[2 * PATH_MAX]; /* all of it, links replaced by what they say */
};

/* A descriptor in which names may be made in place of the walk's directory: itself, or its underlay; -1. */
static int place_writable(struct assembly *assembly, const struct walk *walk, const char *shown,
			  struct failure *failure)
{
	struct stat status;

	for (size_t i = 0; i < assembly->underlay_count; i++)
		if (fstat(assembly->underlays[i], &status) == 0 && status.st_dev == walk->status.st_dev)
			return walk->directory;
	for (size_t i = 0; i < assembly->memory_count; i++)
		if (assembly->memory[i] == walk->status.st_dev)
			return walk->directory;
	if (walk->inside)
		return FAIL(failure, FAILURE_BIND_INSIDE, 0, "%s", shown);
	/* Even then, what other users own is closed: there as in an image that must not change. */
	if (assembly->write && faccessat(walk->directory, ".", W_OK, 0) == 0)
		return walk->directory;
	if (fstat(assembly->root, &status) < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "%s", shown);
	return underlay_make(assembly, walk->directory, same_file(&status, &walk->status), shown, failure);
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

/* Make directory the walk's, and notice where it enters a bind. */
static int walk_to(const struct assembly *assembly, struct walk *walk, int directory)
{
	if (walk->directory >= 0)
		close(walk->directory);
	walk->directory = directory;
	if (directory < 0 || fstat(directory, &walk->status) < 0)
		return -1;
	for (size_t i = 0; i < assembly->cover_count; i++)
		if (assembly->covers[i].device == walk->status.st_dev &&
		    assembly->covers[i].inode == walk->status.st_ino)
			walk->inside = true;
	return 0;
}

static int walk_start(const struct assembly *assembly, struct walk *walk)
{
	walk->inside = false;
	walk->rest = walk->path + strspn(walk->path, "/");
	return walk_to(assembly, walk, point_open(assembly->root, "/"));
}

/* The next word of the path is a link: put what it says in its place, and start again. */
static int walk_link(const struct assembly *assembly, struct walk *walk, const char *link, const char *after)
{
	char joined[sizeof walk->path];
	const int before = link[0] == '/' ? 0 : (int)(walk->rest - walk->path);
	const int length = snprintf(joined, sizeof joined, "%.*s%s%s", before, walk->path, link, after);

	if (length < 0 || (size_t)length >= sizeof joined) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(walk->path, joined);
	return walk_start(assembly, walk);
}

/* Go down walk->path as far as it exists; 0, or -1 and errno. */
static int walk_down(const struct assembly *assembly, struct walk *walk)
{
	char link[PATH_MAX];
	int links = 0;

	if (walk_start(assembly, walk) < 0)
		return -1;
	while (*walk->rest != '\0') {
		char *end = walk->rest + strcspn(walk->rest, "/");
		const char saved = *end;
		ssize_t length;
		int fd;

		*end = '\0';
		length = readlinkat(walk->directory, walk->rest, link, sizeof link - 1);
		/* By its whole path: ".." must not climb out of the root. There are no links before it. */
		fd = length >= 0 ? -1 : point_open(assembly->root, walk->path);
		*end = saved;
		if (length >= 0) {
			link[length] = '\0';
			if (++links > LINKS_MOST) {
				errno = ELOOP;
				return -1;
			}
			if (walk_link(assembly, walk, link, end) < 0)
				return -1;
			continue;
		}
		if (fd < 0)
			return errno == ENOENT ? 0 : -1;
		if (walk_to(assembly, walk, fd) < 0)
			return -1;
		walk->rest = end + strspn(end, "/");
	}
	return 0;
}

static int point_make_missing(struct assembly *assembly, const char *path, bool want_directory,
			      struct failure *failure)
{
	struct walk walk = {.directory = -1};
	int place, fd = -1;

	if (strlen(path) >= PATH_MAX)
		return FAIL(failure, FAILURE_BIND_TARGET, ENAMETOOLONG, "%s", path);
	strcpy(walk.path, path);
	if (walk_down(assembly, &walk) < 0) {
		fd = FAIL(failure, FAILURE_BIND_TARGET, errno, "%s", path);
	} else {
		place = place_writable(assembly, &walk, path, failure);
		if (place >= 0)
			fd = names_make(place, walk.rest, want_directory, path, failure);
	}
	if (walk.directory >= 0)
		close(walk.directory);
	return fd;
}

int point_make(struct assembly *assembly, const char *path, bool want_directory, struct failure *failure)
{
	const int fd = point_open(assembly->root, path);
	struct stat status;

	if (fd < 0 && errno == ENOENT)
		return point_make_missing(assembly, path, want_directory, failure);
	if (fd < 0)
		return FAIL(failure, FAILURE_BIND_TARGET, errno, "%s", path);
	if (fstat(fd, &status) == 0 && S_ISDIR(status.st_mode) == want_directory)
		return fd;
	close(fd);
	return FAIL(failure, FAILURE_BIND_KIND, 0, "%s", path);
}
