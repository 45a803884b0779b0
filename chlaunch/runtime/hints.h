/* What a user should hear before the command runs, though nothing is wrong yet. */
#ifndef CHLAUNCH_HINTS_H
#define CHLAUNCH_HINTS_H

#include "container.h"
#include "failure.h"

/* Inside the container. first: this rank made it. */
void hints_give(const struct container *container, char *const *words, bool first,
		const struct failure *failure);

#endif
