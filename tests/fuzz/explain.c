/* A program that the kernel refused to execute: which error it gave, then the file. */
#include "explain.h"

#include <errno.h>
#include <string.h>

#include "failure.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const int errors[] = {ENOEXEC, EACCES, ENOENT, E2BIG};
	struct input input = {data, size};
	const int error = errors[input_byte(&input) & 3];
	const char *path = file_make(0, input.data, input.size);
	char *const command[] = {(char *)path, NULL};
	struct failure failure = {.notice = NULL};
	char text[2048];

	CHECK(explain(path, command, error, &failure) == -1);
	failure_lines(&failure, text, sizeof text);
	CHECK(strncmp(failure.subject, path, strlen(path)) == 0 && strstr(text, "[CH-00") != NULL);
	return 0;
}
