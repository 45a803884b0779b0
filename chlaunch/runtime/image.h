/* The image drivers: from the word for an image to the top of its root file system. */
#ifndef CHLAUNCH_IMAGE_H
#define CHLAUNCH_IMAGE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "container.h"
#include "failure.h"
#include "image_file.h"
#include "keeper.h"
#include "overlay.h"
#include "points.h"

enum image_kind {
	IMAGE_DIRECTORY,
	IMAGE_LAYERS, /* of ch-image's storage */
	IMAGE_FILE,   /* served through FUSE */
	IMAGE_HOST,   /* "/": no other root directory, only the binds */
};

struct image {
	enum image_kind kind;
	int fd;
	int store; /* IMAGE_LAYERS, with the next */
	char layers[LOWER_MOST];
	int metadata;		/* its upper layer, of which only /ch is to be seen; -1: all is there */
	struct image_file file; /* IMAGE_FILE, and so the rest */
	char program[PATH_MAX];
	bool sets_owner; /* the server says that all files are the user's */
	int device;
	int mount;
	struct keeper keeper;
};

/* Find the image and what it is. */
int image_open(struct image *image, const struct container *container, struct failure *failure);

/* Does the image file want to be mounted in a user namespace above the container's? Where its server reports
 * the IDs that are in the file, or can't be told the container's. */
bool image_wants_outer(const struct image *image, const struct container *container);

/* What the user is called there, so that all files are the user's. */
uint32_t image_owner(const struct image *image);

/* Start the server of an image file, to be mounted by uid and gid of the present user namespace, in a mount
 * namespace where server and keeper may stay. rendezvous: NULL where nobody joins. */
int image_serve(struct image *image, const struct container *container, uid_t uid, gid_t gid,
		const struct rendezvous *rendezvous, struct failure *failure);

/* In the container's mount namespace: mount the image; its top becomes the assembly's root. */
int image_attach(struct image *image, const struct container *container, struct assembly *assembly,
		 struct failure *failure);

void image_close(struct image *image);

#endif
