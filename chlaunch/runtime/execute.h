/* Become the command, or find out why the kernel refused. */
#ifndef CHLAUNCH_EXECUTE_H
#define CHLAUNCH_EXECUTE_H

#include "failure.h"

/* execvp(3) with a reason: returns only on failure, always -1. */
int execute(char **command, struct failure *failure);

#endif
