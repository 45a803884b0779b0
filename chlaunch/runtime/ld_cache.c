/*
 * A new /etc/ld.so.cache.
 *
 * Libraries that a device's CDI specification binds into the container are found by programs only if
 * ld.so.cache lists them. Other runtimes run ldconfig as a hook that writes to the image. Here it runs in a
 * child whose own copy of the mounts has an empty directory at /sys, writes there, and the result is bound
 * over the image's file.
 */
#include "ld_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "mounts.h"

static const char CACHE[] = "/etc/ld.so.cache", OUTPUT[] = "ld.so.cache";
static const char OUTPUT_INSIDE[] = "/sys/ld.so.cache";

static void ldconfig_exec(const struct container *container)
{
	static const char *const programs[] = {"/sbin/ldconfig", "/usr/sbin/ldconfig", "/sbin/ldconfig.real"};
	const char **words = calloc(container->ld_cache_count + 5, sizeof *words);
	size_t count = 0;

	if (words == NULL)
		return;
	words[count++] = "ldconfig";
	words[count++] = "-X"; /* no links: the image is not ours to change */
	words[count++] = "-C";
	words[count++] = OUTPUT_INSIDE;
	for (size_t i = 0; i < container->ld_cache_count; i++)
		words[count++] = container->ld_cache[i];
	for (size_t i = 0; i < sizeof programs / sizeof *programs; i++)
		execv(programs[i], (char **)words);
}

static void ldconfig_run(const struct assembly *assembly, const struct container *container)
{
	const int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (nowhere < 0 || fchdir(assembly->root) < 0 || chroot(".") < 0 || chdir("/") < 0)
		return;
	for (int fd = 0; fd < 3; fd++) /* it complains that it can't write its auxiliary cache */
		dup2(nowhere, fd);
	ldconfig_exec(container);
}

static int ldconfig_wait(const struct assembly *assembly, const struct container *container,
			 struct failure *failure)
{
	const pid_t child = fork();

	if (child == 0) {
		ldconfig_run(assembly, container);
		_exit(EXIT_OURS);
	}
	if (child < 0)
		return FAIL(failure, FAILURE_SYSTEM, errno, "fork");
	/* Whether it wrote a cache says all: its status may be lost where SIGCHLD is ignored. */
	waitpid(child, NULL, 0);
	return 0;
}

/* Show the directory at path of the container while ldconfig runs. */
static int ldconfig_write(struct assembly *assembly, const struct container *container, int output,
			  const char *path, struct failure *failure)
{
	CLEANUP_FD int point = point_open(assembly->root, path);
	char top_path[64];

	if (point < 0)
		return FAIL(failure, FAILURE_IMAGE_NOT_ROOT, errno, "%s", path);
	if (mounts_bind(output, ".", point, failure) < 0 || ldconfig_wait(assembly, container, failure) < 0)
		return -1;
	CLEANUP_FD int top = point_open(assembly->root, path);
	if (top < 0 || umount2(mounts_fd_path(&top_path, top), MNT_DETACH) < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "%s", path);
	return 0;
}

int ld_cache_attach(struct assembly *assembly, const struct container *container, struct failure *failure)
{
	struct stat status;

	if (container->ld_cache_count == 0)
		return 0;
	if (mkdirat(assembly->staging, "ld", 0755) < 0)
		return FAIL(failure, FAILURE_MOUNT, errno, "%s", CACHE);
	CLEANUP_FD int output = openat(assembly->staging, "ld", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (output < 0 || ldconfig_write(assembly, container, output, "/sys", failure) < 0)
		return -1;
	if (fstatat(output, OUTPUT, &status, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(status.st_mode))
		return FAIL(failure, FAILURE_LD_CACHE, 0, "%s", container->image);
	CLEANUP_FD int point = point_make(assembly, CACHE, false, failure);
	return point < 0 ? -1 : mounts_bind(output, OUTPUT, point, failure);
}
