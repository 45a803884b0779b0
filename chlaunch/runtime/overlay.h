/* Overlays: the layers of a ch-image image, and the tmpfs that takes what is written to an image that must
 * not change. */
#ifndef CHLAUNCH_OVERLAY_H
#define CHLAUNCH_OVERLAY_H

#include "container.h"
#include "failure.h"
#include "points.h"

enum { LOWER_MOST = 4096 }; /* a lowerdir that any mount takes */

/* Mount layers (a lowerdir, relative to storage), read-only, on the image's directory in storage. Its top, or
 * -1. */
int overlay_layers(int store, int image, const char *lower, const char *shown, struct failure *failure);

/* Put a writable overlay over the root being put together, or over layers where they are not NULL; its top
 * becomes the assembly's root. */
int overlay_attach(struct assembly *assembly, const struct container *container, int store,
		   const char *layers, struct failure *failure);

/* Show directories, DIR[:DIR...] of the host and the topmost first, as one on the descriptor point,
 * read-only. */
int overlay_show(struct assembly *assembly, const char *directories, int point, const char *shown,
		 struct failure *failure);

/* In a container that is complete: an overlay of this rank alone on top of its root directory, the mounts of
 * the container in it. first: this rank made the container and nobody has entered it yet. */
int overlay_private(const struct container *container, bool first, struct failure *failure);

#endif
