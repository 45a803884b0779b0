/* Become the command. */
#ifndef CHLAUNCH_EXECUTE_H
#define CHLAUNCH_EXECUTE_H

#include <stdbool.h>
#include <stddef.h>

#include "failure.h"

/* execvp(3) with a reason: returns only on failure, always -1. */
int execute(char **command, struct failure *failure);

/* Have the beginning of the command's file read, in order and at once, before its pages are asked for one by
 * one. Worth it where a page costs a decompression. */
void execute_prefetch(const char *name);

/* The file that execute() would try first with success, most likely. */
bool execute_find(const char *name, char *path, size_t size);

#endif
