/* Lines of /proc/self/mountinfo, in which others' mount points are named. Its reader is not public: hence the
 * include. */
#include "overlay.c"

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text, *line;
	struct submount mount;

	memory_watch();
	text = text_make(data, size);
	root_id(text);
	for (line = text; line != NULL; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (submount_parse(line, &mount))
			CHECK(strlen(mount.path) < sizeof mount.path && strlen(mount.path) <= strlen(line));
	}
	memory_release();
	return 0;
}
