/* Mount points inside the tree being put together: found as the container will see them, made where missing.
 */
#ifndef CHLAUNCH_POINTS_H
#define CHLAUNCH_POINTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "failure.h"

enum { UNDERLAYS_MOST = 64 };

/* The top of a bind: what is below it is the host's, not the image's. */
struct cover {
	dev_t device;
	ino_t inode;
};

/* The container's root file system while it is put together. */
struct assembly {
	int root;      /* its top */
	int staging;   /* a tmpfs hidden below the container's /dev: our files and half-made mounts */
	bool write;    /* missing mount points are made in the image itself */
	dev_t *memory; /* of each tmpfs that was asked for, in which mount points are made */
	size_t memory_count;
	struct cover *covers;
	size_t cover_count;
	int underlays[UNDERLAYS_MOST]; /* tops of the tmpfs that stand in for directories that lack a mount
					  point */
	size_t underlay_count;
};

/* A directory with this status is bound into the tree: no mount points are made below it. */
void assembly_cover(struct assembly *assembly, const struct stat *status);

/* What has this status is a tmpfs of the container's own: mount points are made in it. */
void assembly_memory(struct assembly *assembly, const struct stat *status);

/* O_PATH descriptor of path inside root, its links followed inside root; -1 and errno. Linux 3.18 suffices.
 */
int point_open(int root, const char *path);

/* The same; where path is missing, make it: a directory or an empty file. */
int point_make(struct assembly *assembly, const char *path, bool directory, struct failure *failure);

#endif
