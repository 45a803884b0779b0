/* The image's ENTRYPOINT and CMD: a byte for what the user gave, two for where CMD begins, then both files.
 */
#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "fuzz.h"

int __wrap_open(const char *path, int flags, ...);
int __real_open(const char *path, int flags, ...);

static const char *entrypoint, *cmd;

int __wrap_open(const char *path, int flags, ...)
{
	const char *file = strcmp(path, "/ch/entrypoint") == 0 ? entrypoint
			   : strcmp(path, "/ch/cmd") == 0      ? cmd
							       : path;

	if (file == NULL)
		errno = ENOENT;
	return file == NULL ? -1 : __real_open(file, flags);
}

enum { BARE = 1, NO_ENTRYPOINT = 2, NO_CMD = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char *given[] = {(char *)"-", (char *)"argument", NULL};
	struct input input = {data, size};
	const uint8_t mode = input_byte(&input);
	const size_t wanted = input_byte(&input) | (size_t)input_byte(&input) << 8;
	const size_t first = wanted < input.size ? wanted : input.size;
	struct failure failure = {.notice = NULL};
	struct container container = {.image = "image", .command = mode & BARE ? &given[2] : given};
	char **words;

	memory_watch();
	entrypoint = mode & NO_ENTRYPOINT ? NULL : file_make(0, input.data, first);
	cmd = mode & NO_CMD ? NULL : file_make(1, input.data + first, input.size - first);
	words = command_words(&container, &failure);
	if (words != NULL) {
		size_t count = 0, total = 0;

		while (words[count] != NULL)
			total += strlen(words[count++]);
		CHECK(count > 0 && total <= size + sizeof "argument" + sizeof "/.singularity.d/runscript");
		CHECK((mode & BARE) || strcmp(words[count - 1], "argument") == 0);
	}
	memory_release();
	return 0;
}
