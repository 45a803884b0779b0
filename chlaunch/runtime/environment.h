/* The command's environment: Charliecloud's defaults, then the user's changes in their order. */
#ifndef CHLAUNCH_ENVIRONMENT_H
#define CHLAUNCH_ENVIRONMENT_H

#include <stddef.h>

#include "container.h"
#include "failure.h"

/* What $HOME will be: the last --set-env=HOME=…, else /home/$USER with --home, else /. */
void environment_home(const struct container *container, char *home, size_t size);

/* A file of variables, read; with a NUL character behind it. */
struct environment_text {
	char *bytes;
	size_t length;
};

/* Read the host's environment files, one text per variable change, empty for those that are none. */
int environment_read(const struct container *container, struct environment_text *texts,
		     struct failure *failure);

/* Inside the container. */
int environment_apply(const struct container *container, struct environment_text *texts,
		      struct failure *failure);

#endif
