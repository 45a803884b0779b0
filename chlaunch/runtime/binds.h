/* What is asked for is mounted: paths of the host, directories as one, memory; mount points are made where
 * missing. */
#ifndef CHLAUNCH_BINDS_H
#define CHLAUNCH_BINDS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "container.h"
#include "failure.h"
#include "points.h"

/* The words of an optional bind's source: $NAME at its start replaced. Left alone where there is none. */
const char *bind_source(const struct bind *bind, char *buffer, size_t size);

/* Bind source, whose status is given, onto the descriptor point. */
int bind_onto(struct assembly *assembly, const char *source, const struct stat *status, int point,
	      struct failure *failure);

/* Bind source at target. */
int bind_attach(struct assembly *assembly, const char *source, const char *target, bool read_only,
		struct failure *failure);

/* Memory at target, which anyone may write to; size as in tmpfs(5), NULL: half of what there is. Descriptor
 * of its top. */
int tmpfs_attach(struct assembly *assembly, const char *target, const char *size, struct failure *failure);

/* All that the container is to have, in its order. */
int binds_attach(struct assembly *assembly, const struct container *container, struct failure *failure);

#endif
