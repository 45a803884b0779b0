/*
 * The command that an image brings. /ch/entrypoint and /ch/cmd hold the words of ENTRYPOINT and CMD in
 * Charliecloud's form (0.40 and newer): "angi", then for each word its length, 32 bits big-endian, and its
 * bytes. Images of Apptainer have a run script instead.
 */
#include "command.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"

enum {
	FILE_MOST = 1 << 20,
	WORDS_MOST = 4096,
};

static const char MAGIC[4] = "angi", RUN_SCRIPT[] = "/.singularity.d/runscript";

struct word_list {
	char **words;
	size_t count;
};

static int word_add(struct word_list *list, char *word, struct failure *failure)
{
	char **grown = reallocarray(list->words, list->count + 2, sizeof *grown);

	if (grown == NULL || word == NULL)
		return FAIL(failure, FAILURE_MEMORY, errno, "command");
	list->words = grown;
	grown[list->count++] = word;
	grown[list->count] = NULL;
	return 0;
}

/* Append the words in the file's text. */
static int words_parse(struct word_list *list, const char *text, size_t length, const char *shown,
		       struct failure *failure)
{
	size_t at = sizeof MAGIC;
	uint32_t size;

	if (length < at || memcmp(text, MAGIC, sizeof MAGIC) != 0)
		return FAIL(failure, FAILURE_COMMAND_FILE, 0, "%s", shown);
	for (; at < length; at += size) {
		if (length - at < sizeof size || list->count >= WORDS_MOST)
			return FAIL(failure, FAILURE_COMMAND_FILE, 0, "%s", shown);
		memcpy(&size, text + at, sizeof size);
		size = be32toh(size);
		at += sizeof size;
		if (size > length - at || memchr(text + at, '\0', size) != NULL)
			return FAIL(failure, FAILURE_COMMAND_FILE, 0, "%s", shown);
		if (word_add(list, strndup(text + at, size), failure) < 0)
			return -1;
	}
	return 0;
}

/* Append the words of a file, none where it does not exist. */
static int words_read(struct word_list *list, const char *path, struct failure *failure)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	CLEANUP_FREE char *text = malloc(FILE_MOST);
	ssize_t length;

	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	if (text == NULL)
		return FAIL(failure, FAILURE_MEMORY, errno, "command");
	length = fd < 0 ? -1 : read(fd, text, FILE_MOST);
	if (length < 0 || length == FILE_MOST)
		return FAIL(failure, FAILURE_COMMAND_FILE, length < 0 ? errno : 0, "%s", path);
	return words_parse(list, text, (size_t)length, path, failure);
}

char **command_words(const struct container *container, struct failure *failure)
{
	char **given = container->command;
	struct word_list list = {NULL, 0};

	if (given[0] != NULL && strcmp(given[0], "-") != 0)
		return given;
	if (given[0] != NULL)
		given++;
	if (words_read(&list, "/ch/entrypoint", failure) < 0)
		return NULL;
	if (given[0] == NULL && words_read(&list, "/ch/cmd", failure) < 0)
		return NULL;
	if (list.count == 0 && access(RUN_SCRIPT, X_OK) == 0 &&
	    word_add(&list, strdup(RUN_SCRIPT), failure) < 0)
		return NULL;
	for (; given[0] != NULL; given++)
		if (word_add(&list, given[0], failure) < 0)
			return NULL;
	if (list.count == 0)
		FAIL(failure, FAILURE_COMMAND_NONE, 0, "%s", container->image);
	return list.words;
}
