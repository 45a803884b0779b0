/*
 * ch-image's storage, as far as running an image by its name goes. images/NAME/layers lists the image's
 * layers, one short name a line, the lowest first; layer X is the directory l/X.
 */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "identity.h"

enum {
	LAYERS_MOST = 500, /* of an overlay (OVL_MAX_STACK) */
	LAYER_NAME_MOST = 16,
	FILE_MOST = LAYERS_MOST * (LAYER_NAME_MOST + 1),
};

/* Storage that somebody named; NULL if none was. */
static const char *path_given(const struct container *container)
{
	const char *path = container->storage != NULL ? container->storage : getenv("CH_IMAGE_STORAGE");

	return path != NULL && path[0] != '\0' ? path : NULL;
}

void store_path(const struct container *container, char *path, size_t size)
{
	const char *storage = path_given(container);

	if (storage != NULL)
		snprintf(path, size, "%s", storage);
	else
		snprintf(path, size, "/var/tmp/%s.ch", identity_user());
}

/* The name as a file's: '/' is written '%', ':' is written '+'. False if it can be no image's name. */
static bool name_encode(const char *name, char *text, size_t size)
{
	size_t i;

	if (name[0] == '\0' || name[0] == '.' || name[0] == '/')
		return false;
	for (i = 0; name[i] != '\0' && i < size; i++)
		text[i] = (char)(name[i] == '/' ? '%' : name[i] == ':' ? '+' : name[i]);
	if (i == size)
		return false;
	text[i] = '\0';
	return true;
}

/* The default is in a directory where anybody may make it: what others put there is nobody's storage. */
static bool is_ours(const struct container *container, const char *path, int store)
{
	struct stat status, link;

	if (path_given(container) != NULL)
		return true;
	return fstat(store, &status) == 0 && status.st_uid == geteuid() && lstat(path, &link) == 0 &&
	       link.st_uid == geteuid();
}

int store_find(const struct container *container, int *store)
{
	char path[PATH_MAX], name[NAME_MAX + 1], relative[sizeof "images/" + NAME_MAX];
	int image;

	if (!name_encode(container->image, name, sizeof name))
		return -1;
	store_path(container, path, sizeof path);
	*store = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*store >= 0 && !is_ours(container, path, *store)) {
		close(*store);
		*store = -1;
	}
	if (*store < 0)
		return -1;
	snprintf(relative, sizeof relative, "images/%s", name);
	image = openat(*store, relative, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (image < 0) {
		close(*store);
		*store = -1;
	}
	return image;
}

/* Append "l/NAME" in front of what text has, as the layer above it. */
static int layer_prepend(char *text, size_t size, const char *name)
{
	const size_t used = strlen(text), more = strlen(name) + 2 + (used > 0);

	if (name[0] == '\0' || strlen(name) > LAYER_NAME_MOST ||
	    strspn(name, "0123456789abcdefghijklmnopqrstuvwxyz") != strlen(name) || used + more >= size)
		return -1;
	memmove(text + more, text, used + 1);
	memcpy(text, "l/", 2);
	memcpy(text + 2, name, strlen(name));
	if (used > 0)
		text[more - 1] = ':';
	return 0;
}

int store_layers(int image, const char *shown, char *text, size_t size, struct failure *failure)
{
	CLEANUP_FD int fd = openat(image, "layers", O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	char lines[FILE_MOST + 1], *rest = lines, *line;
	const ssize_t length = fd < 0 ? -1 : read(fd, lines, sizeof lines);
	size_t count = 0;

	if (length < 0)
		return FAIL(failure, FAILURE_STORE, errno, "%s: layers", shown);
	text[0] = '\0';
	if (length == 0 || length == sizeof lines || lines[length - 1] != '\n' ||
	    memchr(lines, '\0', (size_t)length) != NULL)
		return FAIL(failure, FAILURE_STORE, 0, "%s: its list of layers is empty, cut off or too long",
			    shown);
	lines[length - 1] = '\0';
	while ((line = strsep(&rest, "\n")) != NULL) {
		if (++count > LAYERS_MOST || layer_prepend(text, size, line) < 0)
			return FAIL(failure, FAILURE_STORE, 0, "%s: can't use layer %zu: %.40s", shown, count,
				    line);
	}
	return 0;
}
