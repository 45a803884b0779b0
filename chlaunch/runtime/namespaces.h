/* User and mount namespaces: make them, or enter somebody's. */
#ifndef CHLAUNCH_NAMESPACES_H
#define CHLAUNCH_NAMESPACES_H

#include <stdint.h>
#include <sys/types.h>

#include "failure.h"

/* New user namespace in which our effective IDs are called uid and gid; all capabilities in it until exec. */
int namespace_user_make(uid_t uid, gid_t gid, struct failure *failure);

/* New mount namespace, a copy of the present one, owned by our user namespace. */
int namespace_mount_make(struct failure *failure);

/* Enter the user and mount namespaces of a process of ours. */
int namespaces_join_process(pid_t pid, struct failure *failure);

/* Inode of a namespace of this process, "user", "mnt" or "pid"; 0 where /proc does not tell. */
uint64_t namespace_own(const char *kind);

#endif
