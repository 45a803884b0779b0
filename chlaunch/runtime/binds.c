/* What a user or planner wants to see in the container: paths of the host, directories as one, memory. */
#include "binds.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "kernel.h"
#include "mounts.h"
#include "overlay.h"

int bind_onto(struct assembly *assembly, const char *source, const struct stat *status, int point,
	      struct failure *failure)
{
	if (mounts_bind(AT_FDCWD, source, point, failure) < 0)
		return -1;
	if (S_ISDIR(status->st_mode))
		assembly_cover(assembly, status);
	return 0;
}

/* The mount point of something that is asked for. */
static int target_make(struct assembly *assembly, const char *target, bool directory, struct failure *failure)
{
	if (target[0] != '/' || target[strspn(target, "/")] == '\0')
		return FAIL(failure, FAILURE_BIND_TARGET, 0, "%s: must be absolute, and not /", target);
	return point_make(assembly, target, directory, failure);
}

int bind_attach(struct assembly *assembly, const char *source, const char *target, bool read_only,
		struct failure *failure)
{
	struct stat status;

	if (stat(source, &status) < 0)
		return FAIL(failure, FAILURE_BIND_SOURCE, errno, "%s", source);
	CLEANUP_FD int point = target_make(assembly, target, S_ISDIR(status.st_mode), failure);
	if (point < 0 || bind_onto(assembly, source, &status, point, failure) < 0)
		return -1;
	if (!read_only)
		return 0;
	CLEANUP_FD int top = point_open(assembly->root, target);
	return top < 0 ? FAIL(failure, FAILURE_BIND_TARGET, errno, "%s", target)
		       : mounts_read_only(top, KERNEL_RECURSIVE, target, failure);
}

int tmpfs_attach(struct assembly *assembly, const char *target, const char *size, struct failure *failure)
{
	CLEANUP_FD int point = target_make(assembly, target, true, failure);
	char path[64], options[128];
	struct stat status;
	int top;

	if (point < 0)
		return -1;
	snprintf(options, sizeof options, "mode=1777%s%s",
		 size == NULL ? "" : ",size=", size == NULL ? "" : size);
	if (mount("tmp", mounts_fd_path(&path, point), "tmpfs", MS_NOSUID | MS_NODEV, options) < 0)
		return FAIL(failure, errno == EINVAL && size != NULL ? FAILURE_TMPFS_SIZE : FAILURE_MOUNT,
			    errno, "tmpfs on %s, %s", target, options);
	top = point_open(assembly->root, target);
	if (top < 0 || fstat(top, &status) < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "tmpfs on %s", target);
	assembly_memory(assembly, &status);
	return top;
}

static int layers_attach(struct assembly *assembly, const char *directories, const char *target,
			 struct failure *failure)
{
	CLEANUP_FD int point = target_make(assembly, target, true, failure);
	struct stat status;

	if (point < 0 || overlay_show(assembly, directories, point, target, failure) < 0)
		return -1;
	CLEANUP_FD int top = point_open(assembly->root, target);
	if (top < 0 || fstat(top, &status) < 0)
		return FAIL(failure, FAILURE_OVERLAY, errno, "%s", target);
	assembly_cover(assembly, &status);
	return 0;
}

const char *bind_source(const struct bind *bind, char *buffer, size_t size)
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

static int path_attach(struct assembly *assembly, const struct bind *bind, struct failure *failure)
{
	char buffer[PATH_MAX];
	const char *source = bind_source(bind, buffer, sizeof buffer);

	if (bind->optional && access(source, F_OK) < 0) {
		notice(failure, NOTICE_VERBOSE, "left out, not here: --bind-try=%s", bind->source);
		return 0;
	}
	return bind_attach(assembly, source, bind->target == NULL ? source : bind->target, bind->read_only,
			   failure);
}

int binds_attach(struct assembly *assembly, const struct container *container, struct failure *failure)
{
	for (size_t i = 0; i < container->bind_count; i++) {
		const struct bind *bind = &container->binds[i];
		CLEANUP_FD int top = -1;

		if (bind->kind == BIND_TMPFS) {
			top = tmpfs_attach(assembly, bind->target, bind->source, failure);
			if (top < 0)
				return -1;
		} else if ((bind->kind == BIND_LAYERS
				    ? layers_attach(assembly, bind->source, bind->target, failure)
				    : path_attach(assembly, bind, failure)) < 0) {
			return -1;
		}
	}
	return 0;
}
