/* The list of an image's layers in storage: it becomes words of mount(2), so what gets through must be plain.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuzz.h"
#include "overlay.h"
#include "store.h"

int __wrap_openat(int directory, const char *path, int flags, ...);

static const char *layers_path;

int __wrap_openat(int directory, const char *path, int flags, ...)
{
	(void)directory;
	CHECK(strcmp(path, "layers") == 0 && (flags & O_NOFOLLOW));
	return open(layers_path, flags & ~O_NOFOLLOW);
}

/* As many layers as the file has lines. */
static void lower_check(const char *text, const struct input *file)
{
	size_t count = 0, lines = 0;

	for (;;) {
		CHECK(strncmp(text, "l/", 2) == 0);
		const size_t length = strspn(text + 2, "0123456789abcdefghijklmnopqrstuvwxyz");
		CHECK(length > 0 && length <= 16 && ++count <= 500);
		text += 2 + length;
		if (*text == '\0')
			break;
		CHECK(*text++ == ':');
	}
	for (size_t i = 0; i < file->size; i++)
		lines += file->data[i] == '\n';
	CHECK(lines == count && file->data[file->size - 1] == '\n');
}

/* The first byte: how much room there is. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};
	struct failure failure = {.notice = NULL};
	const size_t room = LOWER_MOST >> (input_byte(&input) & 7);
	char *text;

	memory_watch();
	text = malloc(room);
	CHECK(text != NULL);
	layers_path = file_make(0, input.data, input.size);
	if (store_layers(-1, "image", text, room, &failure) == 0) {
		CHECK(memchr(text, '\0', room) != NULL);
		lower_check(text, &input);
	}
	memory_release();
	return 0;
}
