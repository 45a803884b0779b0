/* User and mount namespaces: make them, or enter somebody's. Rules: user_namespaces(7), mount_namespaces(7).
 */
#include "namespaces.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"

static int file_write(const char *path, const char *text)
{
	CLEANUP_FD int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	return write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
}

static int unshare_checked(int flags, const char *what, struct failure *failure)
{
	if (unshare(flags) == 0)
		return 0;
	if (errno == ENOSPC || errno == EUSERS)
		return FAIL(failure, FAILURE_USER_NAMESPACE_LIMIT, errno, "%s", what);
	return FAIL(failure, FAILURE_USER_NAMESPACE, errno, "%s", what);
}

int namespace_user_make(uid_t uid, gid_t gid, struct failure *failure)
{
	const uid_t outer_uid = geteuid();
	const gid_t outer_gid = getegid();
	char map[64];

	if (unshare_checked(CLONE_NEWUSER, "unshare(CLONE_NEWUSER)", failure) < 0)
		return -1;
	/* Since Linux 3.19 an unprivileged gid_map wants setgroups(2) denied first. */
	if (file_write("/proc/self/setgroups", "deny\n") < 0 && errno != ENOENT)
		return FAIL(failure, FAILURE_ID_MAP, errno, "/proc/self/setgroups");
	snprintf(map, sizeof map, "%u %u 1\n", uid, outer_uid);
	if (file_write("/proc/self/uid_map", map) < 0)
		return FAIL(failure, FAILURE_ID_MAP, errno, "/proc/self/uid_map");
	snprintf(map, sizeof map, "%u %u 1\n", gid, outer_gid);
	if (file_write("/proc/self/gid_map", map) < 0)
		return FAIL(failure, FAILURE_ID_MAP, errno, "/proc/self/gid_map");
	return 0;
}

int namespace_mount_make(struct failure *failure)
{
	return unshare_checked(CLONE_NEWNS, "unshare(CLONE_NEWNS)", failure);
}

int namespaces_join_process(pid_t pid, struct failure *failure)
{
	static const struct {
		const char *name;
		int flag;
	} kinds[] = {{"user", CLONE_NEWUSER}, {"mnt", CLONE_NEWNS}};
	int fds[2];
	char path[64];

	/* Both before either: inside the user namespace the other link may no longer be ours to open. */
	for (size_t i = 0; i < 2; i++) {
		snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, kinds[i].name);
		fds[i] = open(path, O_RDONLY | O_CLOEXEC);
		if (fds[i] < 0)
			return FAIL(failure, FAILURE_JOIN_PID, errno, "%d: %s not found", pid, path);
	}
	for (size_t i = 0; i < 2; i++) {
		if (setns(fds[i], kinds[i].flag) < 0)
			return FAIL(failure, FAILURE_JOIN_PID, errno, "%d: setns(%s)", pid, kinds[i].name);
		close(fds[i]);
	}
	return 0;
}

uint64_t namespace_own(const char *kind)
{
	char path[64];
	struct stat status;

	snprintf(path, sizeof path, "/proc/self/ns/%s", kind);
	return stat(path, &status) == 0 ? status.st_ino : 0;
}
