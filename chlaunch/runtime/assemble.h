/* Put the container's root file system together and make it the root directory. */
#ifndef CHLAUNCH_ASSEMBLE_H
#define CHLAUNCH_ASSEMBLE_H

#include "container.h"
#include "failure.h"
#include "image.h"

/* Image, identity files, default mounts, binds, pivot. In a mount namespace of our own; ends in the new /. */
int assemble(const struct container *container, struct image *image, struct failure *failure);

/* What becomes the container's /tmp: $TMPDIR, else /tmp. */
const char *tmp_source(void);

#endif
