/* Put the container's root file system together and make it the root directory. */
#ifndef CHLAUNCH_MOUNTS_H
#define CHLAUNCH_MOUNTS_H

#include "container.h"
#include "failure.h"

/* Image, default mounts, identity files, binds, pivot. In a mount namespace of our own; ends in the new /. */
int mounts_build(const struct container *container, struct failure *failure);

/* The words of an optional bind's source: $NAME at its start replaced. Left alone where there is none. */
const char *mounts_source(const struct bind *bind, char *buffer, size_t size);

/* What becomes the container's /tmp: $TMPDIR, else /tmp. */
const char *mounts_tmp(void);

/* Bind the mount tree at directory/source onto the descriptor point. */
int mounts_bind(int directory, const char *source, int point, struct failure *failure);

/* New tmpfs at directory/name, which is made first. Descriptor of its top. */
int mounts_tmpfs(int directory, const char *name, struct failure *failure);

/* Move the mount whose top is given onto the descriptor point. */
int mounts_move(int top, int point, const char *shown, struct failure *failure);

#endif
