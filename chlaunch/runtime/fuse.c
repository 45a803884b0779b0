/*
 * Mount a FUSE file system without fusermount.
 *
 * A user namespace may mount FUSE since Linux 4.18, if it opened /dev/fuse itself. Options: fuse(4) and
 * Documentation/filesystems/fuse.rst. Nothing may be looked at below the mount before the server runs: such a
 * look would wait for it.
 */
#include "fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

#include "cleanup.h"
#include "kernel.h"

int fuse_device_open(struct failure *failure)
{
	const int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (device >= 0)
		return device;
	return FAIL(failure, errno == EACCES || errno == EPERM ? FAILURE_FUSE_DENIED : FAILURE_FUSE_ABSENT,
		    errno, "/dev/fuse");
}

static int settings_apply(int system, const char *const (*settings)[2])
{
	for (; (*settings)[0] != NULL; settings++)
		if (kernel_file_system_set(system,
					   (*settings)[1] == NULL ? KERNEL_CONFIG_FLAG : KERNEL_CONFIG_STRING,
					   (*settings)[0], (*settings)[1]) < 0)
			return -1;
	return kernel_file_system_set(system, KERNEL_CONFIG_CREATE, NULL, NULL);
}

int fuse_mount_make(int device, uid_t uid, gid_t gid)
{
	char fd_text[16], uid_text[16], gid_text[16];
	const char *const settings[][2] = {
		{"source", "chlaunch"}, {"subtype", "image"},  {"ro", NULL},
		{"fd", fd_text},	{"rootmode", "40000"}, {"user_id", uid_text},
		{"group_id", gid_text}, {"allow_other", NULL}, {NULL, NULL},
	};
	CLEANUP_FD int system = kernel_file_system("fuse");

	snprintf(fd_text, sizeof fd_text, "%d", device);
	snprintf(uid_text, sizeof uid_text, "%u", uid);
	snprintf(gid_text, sizeof gid_text, "%u", gid);
	if (system < 0 || settings_apply(system, settings) < 0)
		return -1;
	return kernel_file_system_mount(system, KERNEL_ATTR_NOSUID | KERNEL_ATTR_NODEV | KERNEL_ATTR_RDONLY);
}

/* The same with mount(2). "/.." leads from our root directory to what is mounted on it; "/" does not. */
static int mount_old(int device, uid_t uid, gid_t gid)
{
	char options[128];

	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%u,group_id=%u,allow_other", device,
		 uid, gid);
	if (mount("chlaunch", "/", "fuse.image", MS_NOSUID | MS_NODEV | MS_RDONLY, options) < 0)
		return -1;
	return open("/..", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

int fuse_mount_attach(int mount, int device, uid_t uid, gid_t gid, const char *shown, struct failure *failure)
{
	CLEANUP_FD int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	const int top = mount >= 0 ? mount : mount_old(device, uid, gid);

	if (top >= 0 && (mount < 0 || kernel_tree_attach(mount, root) == 0))
		return top;
	FAIL(failure, FAILURE_FUSE_MOUNT, errno, "%s", shown);
	if (top >= 0)
		close(top);
	return -1;
}
