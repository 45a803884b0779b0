/* Become the command. */
#include "execute.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "explain.h"

extern char **environ;

enum {
	PREFETCH_MOST = 4 << 20,
	PREFETCH_WINDOW = 128
		<< 10, /* of read-ahead, and a block of SquashFS, unless somebody changed them */
};

/* A text without #! is the shell's, as execvp(3) and POSIX have it; a file with NUL bytes is not. */
static void execute_script(const char *path, char **command)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	char start[128];
	const ssize_t length = fd < 0 ? -1 : read(fd, start, sizeof start);
	size_t count = 0;

	if (length < 0 || memchr(start, '\0', (size_t)length) != NULL)
		return;
	while (command[count] != NULL)
		count++;
	char **words = calloc(count + 2, sizeof *words);
	if (words == NULL)
		return;
	words[0] = (char *)"/bin/sh";
	words[1] = (char *)path;
	memcpy(words + 2, command + 1, count * sizeof *words);
	execve(words[0], words, environ);
	free(words);
}

static int execute_path(const char *path, char **command)
{
	execve(path, command, environ);
	if (errno == ENOEXEC) {
		execute_script(path, command);
		errno = ENOEXEC;
	}
	return errno;
}

/* The next place to look for a command: PATH's item at *search, which then is behind it. False at the end. */
static bool place_next(const char **search, const char *name, char *path, size_t size)
{
	const size_t length = *search == NULL ? 0 : strcspn(*search, ":");

	if (*search == NULL || **search == '\0')
		return false;
	if ((size_t)snprintf(path, size, "%.*s/%s", length == 0 ? 1 : (int)length,
			     length == 0 ? "." : *search, name) >= size)
		path[0] = '\0'; /* no file has such a path; its beginning may be another's */
	*search += length + ((*search)[length] == ':');
	return true;
}

static bool is_path(const char *name)
{
	return strchr(name, '/') != NULL || name[0] == '\0';
}

/* False if it is no file that could be executed. */
static bool file_open(struct command_file *file)
{
	file->fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (file->fd < 0)
		return errno == EACCES && access(file->path, X_OK) == 0 &&
		       stat(file->path, &file->status) == 0;
	if (fstat(file->fd, &file->status) == 0 && S_ISREG(file->status.st_mode) &&
	    (file->status.st_mode & (S_IXUSR | S_IXGRP | S_IXOTH)) != 0)
		return true;
	close(file->fd);
	file->fd = -1;
	return false;
}

void execute_find(const char *name, struct command_file *file)
{
	const char *search = getenv("PATH");

	if (is_path(name)) {
		snprintf(file->path, sizeof file->path, "%s", name);
		if (file_open(file))
			return;
	} else {
		while (place_next(&search, name, file->path, sizeof file->path))
			if (file_open(file))
				return;
	}
	file->path[0] = '\0';
}

/*
 * A file that is closed after its pages were asked for is waited for: FUSE flushes it behind them. A mapping
 * keeps it open until exec, and the command can begin with the first pages. The kernel takes one read-ahead
 * window at a time.
 */
void execute_prefetch(struct command_file *file)
{
	char *text;
	size_t size;

	if (file->fd < 0 || file->status.st_size == 0)
		return;
	size = file->status.st_size < PREFETCH_MOST ? (size_t)file->status.st_size : PREFETCH_MOST;
	text = mmap(NULL, size, PROT_READ, MAP_PRIVATE, file->fd, 0);
	close(file->fd);
	file->fd = -1;
	for (size_t at = 0; text != MAP_FAILED && at < size; at += PREFETCH_WINDOW)
		madvise(text + at, size - at < PREFETCH_WINDOW ? size - at : PREFETCH_WINDOW, MADV_WILLNEED);
}

int execute(char **command, struct failure *failure)
{
	const char *search = getenv("PATH"), *name = command[0];
	char path[PATH_MAX], refused[PATH_MAX] = "";
	int error, refusal = ENOENT;

	if (is_path(name)) {
		error = execute_path(name, command);
		return explain(name, command, error, failure);
	}
	while (place_next(&search, name, path, sizeof path)) {
		error = execute_path(path, command);
		/* There, but refused: keep the first reason. */
		if (refused[0] == '\0' && (error == ENOTCONN || access(path, F_OK) == 0)) {
			strcpy(refused, path);
			refusal = error;
		}
	}
	return explain(refused[0] == '\0' ? name : refused, command, refusal, failure);
}
