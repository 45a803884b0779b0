/* The command that an image brings: ENTRYPOINT and CMD. */
#ifndef CHLAUNCH_COMMAND_H
#define CHLAUNCH_COMMAND_H

#include "container.h"
#include "failure.h"

/* Inside the container: the words to execute, the user's or the image's. NULL and a failure set. */
char **command_words(const struct container *container, struct failure *failure);

#endif
