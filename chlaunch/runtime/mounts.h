/* Mounts, made: with the new calls where the kernel has them, else with mount(2). */
#ifndef CHLAUNCH_MOUNTS_H
#define CHLAUNCH_MOUNTS_H

#include "failure.h"

/* What /proc/self/mountinfo calls the source of a tmpfs that stands in for something of the image. */
#define MOUNTS_OWN "chlaunch"

/* A path that leads to what the descriptor is of. */
const char *mounts_fd_path(char (*buffer)[64], int fd);

/* Bind the mount tree at directory/source onto the descriptor point. */
int mounts_bind(int directory, const char *source, int point, struct failure *failure);

/* Move the mount whose top is given onto the descriptor point. */
int mounts_move(int top, int point, const char *shown, struct failure *failure);

/* Make the mount whose top is given read-only; flags: 0, or KERNEL_RECURSIVE for all below it too. */
int mounts_read_only(int top, unsigned flags, const char *shown, struct failure *failure);

/* New tmpfs; size as in tmpfs(5), NULL: small. */
int mounts_tmpfs_at(const char *target, const char *size, struct failure *failure);

/* The same at directory/name, which is made first. Descriptor of its top. */
int mounts_tmpfs(int directory, const char *name, const char *size, struct failure *failure);

/* The same on top of the root directory, where it hides nothing. Descriptor of its top. */
int mounts_tmpfs_on_root(const char *size, struct failure *failure);

#endif
