/* The header of an image file: SquashFS, EROFS, SIF. */
#include "image_file.h"

#include <endian.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "fuzz.h"

static void image_check(const struct image_file *file, const uint8_t *data, size_t size)
{
	uint64_t used;

	CHECK(file->server != NULL && file->server->program != NULL && file->offset <= size);
	if (strcmp(file->server->program, "squashfuse_ll") == 0) {
		CHECK(size - file->offset >= 96 && memcmp(data + file->offset, "hsqs", 4) == 0);
		memcpy(&used, data + file->offset + 40, sizeof used);
		CHECK(le64toh(used) <= size - file->offset);
	} else {
		CHECK(file->offset == 0 && size >= 1024 + 128);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const int fd = open(file_make(0, data, size), O_RDONLY | O_CLOEXEC);
	struct failure failure = {.notice = NULL};
	struct image_file file;

	CHECK(fd >= 0);
	failure.subject[0] = '\0';
	if (image_file_probe(fd, "image", &file, &failure) == 0)
		image_check(&file, data, size);
	else
		CHECK(strncmp(failure.subject, "image", 5) == 0);
	close(fd);
	return 0;
}
