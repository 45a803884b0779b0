/* Mount a FUSE file system without fusermount: /dev/fuse opened and mounted by ourselves, in our namespaces.
 */
#ifndef CHLAUNCH_FUSE_H
#define CHLAUNCH_FUSE_H

#include <sys/types.h>

#include "failure.h"

/* /dev/fuse, opened in the user namespace in which it will be mounted, as the kernel wants it; -1. */
int fuse_device_open(struct failure *failure);

/* A detached, read-only mount of what the server behind device will serve; IDs as in the present user
 * namespace. -1 and errno. */
int fuse_mount_make(int device, uid_t uid, gid_t gid);

/* Attach it on top of the host's root directory, where it hides nothing; mount: of fuse_mount_make, or -1 to
 * make one now with mount(2). Its top, or -1. */
int fuse_mount_attach(int mount, int device, uid_t uid, gid_t gid, const char *shown,
		      struct failure *failure);

#endif
