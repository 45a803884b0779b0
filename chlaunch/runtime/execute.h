/* Become the command. */
#ifndef CHLAUNCH_EXECUTE_H
#define CHLAUNCH_EXECUTE_H

#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "failure.h"

/* A command's file, looked for once: behind a server each symbolic link on the way is read anew every time.
 */
struct command_file {
	int fd; /* -1 if it can't be read */
	struct stat status;
	char path[PATH_MAX]; /* empty if there is none */
};

/* execvp(3) with a reason: returns only on failure, always -1. */
int execute(char **command, struct failure *failure);

/* The file that execute() would try first with success, most likely. */
void execute_find(const char *name, struct command_file *file);

/* Have its beginning read, in order and at once, before its pages are asked for one by one, and close it.
 * Worth it where a page costs a decompression. */
void execute_prefetch(struct command_file *file);

#endif
