/* System calls that libc or its headers may not know yet. Numbers from 424 on are the same on every
 * architecture. */
#ifndef CHLAUNCH_KERNEL_H
#define CHLAUNCH_KERNEL_H

#include <fcntl.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
	KERNEL_OPEN_TREE = 428,	    /* Linux 5.2 */
	KERNEL_MOVE_MOUNT = 429,    /* Linux 5.2 */
	KERNEL_OPENAT2 = 437,	    /* Linux 5.6 */
	KERNEL_MOUNT_SETATTR = 442, /* Linux 5.12 */
};

enum {
	KERNEL_TREE_CLONE = 1,
	KERNEL_RECURSIVE = 0x8000, /* AT_RECURSIVE */
	KERNEL_MOVE_F_EMPTY = 0x4,
	KERNEL_MOVE_T_EMPTY = 0x40,
	KERNEL_RESOLVE_IN_ROOT = 0x10,
	KERNEL_ATTR_RDONLY = 0x1,
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

/* O_PATH descriptor of path as it is seen by a process whose root directory is root. */
static inline int kernel_open_in_root(int root, const char *path)
{
	struct kernel_open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = KERNEL_RESOLVE_IN_ROOT};

	return (int)syscall(KERNEL_OPENAT2, root, path, &how, sizeof how);
}

#endif
