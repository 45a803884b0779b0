/*
 * Environment files. The first byte says how the bytes are read (see below), the rest is a file: of the host,
 * then of the image, or a value, or a glob.
 */
#include "environment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

int __wrap_open(const char *path, int flags, ...);
int __real_open(const char *path, int flags, ...);
int __wrap_setenv(const char *name, const char *value, int replace);

extern char **environ;

static const char *images_own;

int __wrap_open(const char *path, int flags, ...)
{
	return __real_open(strcmp(path, "/ch/environment") == 0 ? images_own : path, flags);
}

/* As libc's, but for memory: libc keeps every value it ever set. */
int __wrap_setenv(const char *name, const char *value, int replace)
{
	const size_t length = strlen(name), size = length + strlen(value) + 2;
	char *word;

	CHECK(replace);
	if (length == 0 || strchr(name, '=') != NULL) {
		errno = EINVAL;
		return -1;
	}
	word = malloc(size);
	CHECK(word != NULL);
	snprintf(word, size, "%s=%s", name, value);
	return putenv(word);
}

enum { HOSTS = 1, IMAGES = 2, VALUE = 4, GLOB = 8, NULS = 16, LITERAL = 32, HOST_ROOT = 64, BARE = 128 };

static size_t changes_make(uint8_t mode, struct input *input, struct variable_change *changes)
{
	const enum variable_change_kind kind = mode & NULS ? VARIABLE_FILE_NUL : VARIABLE_FILE;
	const bool literal = mode & LITERAL;
	const char *file = file_make(0, input->data, input->size);
	size_t count = 0;

	if (mode & HOSTS)
		changes[count++] = (struct variable_change){kind, NULL, file, literal};
	if (mode & IMAGES)
		changes[count++] = (struct variable_change){kind, NULL, NULL, literal};
	if (mode & VALUE)
		changes[count++] = (struct variable_change){VARIABLE_SET, "HOME", input_word(input), literal};
	if (mode & GLOB)
		changes[count++] = (struct variable_change){VARIABLE_UNSET, input_word(input), NULL, literal};
	return count;
}

static void environment_check(void)
{
	size_t count = 0, total = 0;

	for (; environ[count] != NULL; count++) {
		total += strlen(environ[count]);
		CHECK(environ[count][0] != '=');
	}
	CHECK(total > 0 && getenv("CH_RUNNING") != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char first[] = "FIRST=1", second[] = "SECOND=x:y", odd[] = "NOTHING";
	static char *words[64];
	struct input input = {data, size};
	const uint8_t mode = input_byte(&input);
	struct variable_change changes[4];
	struct container container = {
		.image = mode & HOST_ROOT ? "/" : "image", .variables = changes, .home = mode & HOST_ROOT};
	struct environment_text texts[4] = {{NULL, 0}};
	struct failure failure = {.notice = NULL};

	memory_watch();
	memcpy(words, (char *[]){first, odd, second, NULL}, 4 * sizeof *words);
	environ = mode & BARE ? words + 3 : words;
	images_own = file_make(1, input.data, input.size);
	container.variable_count = changes_make(mode, &input, changes);
	if (environment_read(&container, texts, &failure) == 0 &&
	    environment_apply(&container, texts, &failure) == 0)
		environment_check();
	clearenv();
	memory_release();
	return 0;
}
