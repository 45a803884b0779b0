/* What a user should hear before the command runs, though nothing is wrong yet. */
#ifndef CHLAUNCH_HINTS_H
#define CHLAUNCH_HINTS_H

#include "container.h"
#include "execute.h"
#include "failure.h"

/* Whether this rank is the one that gives them. first: it made the container. */
bool hints_wanted(bool first, const struct failure *failure);

/* Inside the container. file: the command's. */
void hints_give(const struct container *container, char *const *words, const struct command_file *file,
		const struct failure *failure);

#endif
