/* A new /etc/ld.so.cache for host libraries that were bound in, without a change to the image. */
#ifndef CHLAUNCH_LD_CACHE_H
#define CHLAUNCH_LD_CACHE_H

#include "container.h"
#include "failure.h"
#include "points.h"

/* When all else is mounted: run the image's ldconfig for the container's directories and show its result. */
int ld_cache_attach(struct assembly *assembly, const struct container *container, struct failure *failure);

#endif
