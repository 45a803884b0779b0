/* System calls that libc or its headers may not know yet. Numbers from 424 on are the same on every
 * architecture. */
#ifndef CHLAUNCH_KERNEL_H
#define CHLAUNCH_KERNEL_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
	KERNEL_OPEN_TREE = 428,		/* Linux 5.2 */
	KERNEL_MOVE_MOUNT = 429,	/* Linux 5.2 */
	KERNEL_FSOPEN = 430,		/* Linux 5.2 */
	KERNEL_FSCONFIG = 431,		/* Linux 5.2 */
	KERNEL_FSMOUNT = 432,		/* Linux 5.2 */
	KERNEL_PIDFD_SEND_SIGNAL = 424, /* Linux 5.1 */
	KERNEL_PIDFD_OPEN = 434,	/* Linux 5.3 */
	KERNEL_PIDFD_GETFD = 438,	/* Linux 5.6 */
	KERNEL_CLOSE_RANGE = 436,	/* Linux 5.9 */
	KERNEL_OPENAT2 = 437,		/* Linux 5.6 */
	KERNEL_MOUNT_SETATTR = 442,	/* Linux 5.12 */
};

enum {
	KERNEL_TREE_CLONE = 1,
	KERNEL_RECURSIVE = 0x8000, /* AT_RECURSIVE */
	KERNEL_MOVE_F_EMPTY = 0x4,
	KERNEL_MOVE_T_EMPTY = 0x40,
	KERNEL_RESOLVE_IN_ROOT = 0x10,
	KERNEL_ATTR_RDONLY = 0x1,
	KERNEL_ATTR_NOSUID = 0x2,
	KERNEL_ATTR_NODEV = 0x4,
	KERNEL_CLOEXEC = 0x1, /* of fsopen and fsmount */
	KERNEL_CONFIG_FLAG = 0,
	KERNEL_CONFIG_STRING = 1,
	KERNEL_CONFIG_CREATE = 6,
};

struct kernel_open_how {
	uint64_t flags, mode, resolve;
};

struct kernel_mount_attr {
	uint64_t set, clear, propagation, user_namespace;
};

/* A detached copy of the mount tree at path. */
static inline int kernel_tree_clone(int directory, const char *path)
{
	return (int)syscall(KERNEL_OPEN_TREE, directory, path,
			    KERNEL_TREE_CLONE | O_CLOEXEC | KERNEL_RECURSIVE);
}

static inline int kernel_tree_attach(int tree, int point)
{
	return (int)syscall(KERNEL_MOVE_MOUNT, tree, "", point, "",
			    KERNEL_MOVE_F_EMPTY | KERNEL_MOVE_T_EMPTY);
}

/* flags: 0 or KERNEL_RECURSIVE */
static inline int kernel_tree_read_only(int tree, unsigned flags)
{
	struct kernel_mount_attr attributes = {.set = KERNEL_ATTR_RDONLY};

	return (int)syscall(KERNEL_MOUNT_SETATTR, tree, "", AT_EMPTY_PATH | flags, &attributes,
			    sizeof attributes);
}

/*
 * Can a mount be made here and attached elsewhere? Asked with words that are wrong: whoever is there says so,
 * in whichever way. A process that may not mount is told EPERM before its words are looked at; to one that
 * may only an outer sandbox says that. Most sandboxes that forbid one of these calls forbid fsconfig(2) too,
 * which looks at its words first.
 */
static inline bool kernel_takes_mounts(bool may_mount)
{
	static const int calls[] = {KERNEL_FSOPEN, KERNEL_FSMOUNT, KERNEL_MOVE_MOUNT};

	for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++)
		if (syscall(calls[i], -1, NULL, -1, NULL, 0) < 0 &&
		    (errno == ENOSYS || (may_mount && errno == EPERM)))
			return false;
	return syscall(KERNEL_FSCONFIG, -1, 0, NULL, NULL, 0) < 0 && errno == EINVAL;
}

/* One step of describing a file system that kernel_file_system() began. */
static inline int kernel_file_system_set(int fd, unsigned command, const char *key, const char *value)
{
	return (int)syscall(KERNEL_FSCONFIG, fd, command, key, value, 0);
}

static inline int kernel_file_system(const char *type)
{
	return (int)syscall(KERNEL_FSOPEN, type, KERNEL_CLOEXEC);
}

/* A detached mount of the file system described. */
static inline int kernel_file_system_mount(int fd, unsigned attributes)
{
	return (int)syscall(KERNEL_FSMOUNT, fd, KERNEL_CLOEXEC, attributes);
}

/* O_PATH descriptor of path as it is seen by a process whose root directory is root. */
static inline int kernel_open_in_root(int root, const char *path)
{
	struct kernel_open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = KERNEL_RESOLVE_IN_ROOT};

	return (int)syscall(KERNEL_OPENAT2, root, path, &how, sizeof how);
}

#endif
