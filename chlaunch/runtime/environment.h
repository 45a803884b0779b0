/* The command's environment: Charliecloud's defaults, then the user's changes in their order. */
#ifndef CHLAUNCH_ENVIRONMENT_H
#define CHLAUNCH_ENVIRONMENT_H

#include <stddef.h>

#include "container.h"
#include "failure.h"

/* What $HOME will be: the last --set-env=HOME=…, else /home/$USER with --home, else /. */
void environment_home(const struct container *container, char *home, size_t size);

/* Inside the container. Host files named by --set-env were read before, by environment_read. */
int environment_apply(const struct container *container, char **file_texts, struct failure *failure);

/* Texts of the host's environment files, one slot per variable change, NULL elsewhere. */
int environment_read(const struct container *container, char **file_texts, struct failure *failure);

#endif
