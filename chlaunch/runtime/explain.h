/* Why the kernel refused to execute a file. */
#ifndef CHLAUNCH_EXPLAIN_H
#define CHLAUNCH_EXPLAIN_H

#include "failure.h"

/* path: what execve(2) refused with error, or a command that was nowhere. Always -1. */
int explain(const char *path, char *const *command, int error, struct failure *failure);

#endif
