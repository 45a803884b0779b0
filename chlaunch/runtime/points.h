/* Mount points inside the tree being put together: found as the container will see them, made where missing.
 */
#ifndef CHLAUNCH_POINTS_H
#define CHLAUNCH_POINTS_H

#include <stdbool.h>
#include <stddef.h>

#include "failure.h"

enum { UNDERLAYS_MOST = 64 };

/* The container's root file system while it is put together. */
struct assembly {
	int root;    /* its top */
	int staging; /* a tmpfs hidden below the container's /dev: our files and half-made mounts */
	bool write;  /* missing mount points are made in the image itself */
	int image_mount;
	int underlays[UNDERLAYS_MOST]; /* tops of the tmpfs that stand in for directories that lack a mount
					  point */
	int underlay_mounts[UNDERLAYS_MOST];
	size_t underlay_count;
};

/* O_PATH descriptor of path inside root, its links followed inside root; -1 and errno. Linux 3.18 suffices.
 */
int point_open(int root, const char *path);

/* The same; where path is missing, make it: a directory or an empty file. */
int point_make(struct assembly *assembly, const char *path, bool directory, struct failure *failure);

/* Which mount a descriptor is on (mnt_id of proc_pid_fdinfo(5)), -1 and errno. */
int point_mount_id(int fd);

#endif
