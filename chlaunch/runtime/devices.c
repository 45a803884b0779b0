/*
 * CDI devices. Their specifications are JSON and YAML, which no rank should read: ch-launch does it once. A
 * ch-run that is given --cdi or --device itself becomes ch-cdi, which becomes ch-run again, with its findings
 * as plain options in front of the same words.
 */
#include "devices.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char HELPER[] = "ch-cdi";

static char *word_make(const char *option, const char *value)
{
	char *word;

	return asprintf(&word, "%s%s", option, value) < 0 ? NULL : word;
}

/* The helper's words, then "--", our own path and our words. NULL where memory ends. */
static char **words_make(const struct options *options, char *helper, char *own, char **argv)
{
	size_t count = 0, given = 0;
	char **words;

	while (argv[given] != NULL)
		given++;
	words = calloc(options->device_count + given + 7, sizeof *words);
	if (words == NULL)
		return NULL;
	words[count++] = helper;
	if (options->device_directories != NULL)
		words[count++] = word_make("--dirs=", options->device_directories);
	if (options->verbosity > 0)
		words[count++] = word_make("--verbose", "");
	if (options->all_devices)
		words[count++] = word_make("--all", "");
	for (size_t i = 0; i < options->device_count; i++)
		words[count++] = word_make("--request=", options->devices[i]);
	words[count++] = word_make("--", "");
	words[count++] = own;
	for (size_t i = 1; i < given; i++)
		words[count++] = argv[i];
	return words;
}

int devices_exec(const struct options *options, char **argv, struct failure *failure)
{
	char own[PATH_MAX], helper[PATH_MAX + sizeof HELPER];
	const ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);
	char **words;

	if (length < 0)
		return FAIL(failure, FAILURE_CDI_HELPER, errno, "/proc/self/exe");
	own[length] = '\0';
	snprintf(helper, sizeof helper, "%.*s%s", (int)(strrchr(own, '/') + 1 - own), own, HELPER);
	words = words_make(options, helper, own, argv);
	if (words == NULL)
		return FAIL(failure, FAILURE_MEMORY, errno, "%s", HELPER);
	execv(helper, words);
	return FAIL(failure, FAILURE_CDI_HELPER, errno, "%s", helper);
}
