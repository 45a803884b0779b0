/* The image drivers. What a word means: a name in storage, if it could be one and is there; else a path. */
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fuse.h"
#include "kernel.h"
#include "mounts.h"
#include "store.h"

static int file_open(struct image *image, const struct container *container, struct failure *failure)
{
	close(image->fd); /* O_PATH */
	image->fd = open(container->image, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (image->fd < 0)
		return FAIL(failure, FAILURE_IMAGE_UNREADABLE, errno, "%s", container->image);
	if (image_file_probe(image->fd, container->image, &image->file, failure) < 0)
		return -1;
	if (container->write)
		return FAIL(failure, FAILURE_IMAGE_READ_ONLY, 0, "%s", container->image);
	if (keeper_program(image->file.server, image->program, sizeof image->program, container->image,
			   failure) < 0)
		return -1;
	image->sets_owner = keeper_sets_owner(image->file.server, image->program);
	return 0;
}

bool image_wants_outer(const struct image *image, const struct container *container)
{
	/* squashfuse takes uid=0 for no uid at all (0.5.2) */
	const bool can_tell = image->sets_owner && container->uid != 0 && container->gid != 0;

	return !can_tell && kernel_takes_mounts(false);
}

uint32_t image_owner(const struct image *image)
{
	return image->sets_owner ? 1 : image->file.owner; /* 1: any but 0 */
}

int image_serve(struct image *image, const struct container *container, uid_t uid, gid_t gid,
		const struct rendezvous *rendezvous, struct failure *failure)
{
	struct keeper_work work = {.program = image->program,
				   .file = &image->file,
				   .single = container->fuse_single,
				   .image = image->fd,
				   .device = fuse_device_open(failure),
				   .mount = -1,
				   .set_owner = image->sets_owner,
				   .uid = uid,
				   .gid = gid,
				   .rendezvous = rendezvous,
				   .shown = container->image};

	image->device = work.device;
	if (image->device < 0)
		return -1;
	if (kernel_takes_mounts(true)) {
		image->mount = fuse_mount_make(image->device, uid, gid);
		if (image->mount < 0)
			return FAIL(failure, FAILURE_FUSE_MOUNT, errno, "%s", container->image);
		work.mount = image->mount;
	}
	if (keeper_start(&image->keeper, &work, failure) < 0)
		return -1;
	if (image->mount >= 0)
		keeper_go(&image->keeper);
	return 0;
}

static bool is_host_root(const struct stat *status)
{
	struct stat root;

	return stat("/", &root) == 0 && root.st_dev == status->st_dev && root.st_ino == status->st_ino;
}

/* A path without a slash in it could have been meant as a name. */
static int image_missing(const struct container *container, int error, struct failure *failure)
{
	char storage[PATH_MAX];

	if (error != ENOENT && error != ENOTDIR)
		return FAIL(failure, FAILURE_IMAGE_UNREADABLE, error, "%s", container->image);
	if (container->image[0] == '/' || container->image[0] == '.')
		return FAIL(failure, FAILURE_IMAGE_MISSING, error, "%s", container->image);
	store_path(container, storage, sizeof storage);
	return FAIL(failure, FAILURE_IMAGE_NAME, error, "%s (nor in storage: %s)", container->image, storage);
}

int image_open(struct image *image, const struct container *container, struct failure *failure)
{
	struct stat status;

	*image =
		(struct image){.store = -1, .metadata = -1, .device = -1, .mount = -1, .keeper = {-1, -1, 0}};
	image->fd = store_find(container, &image->store);
	if (image->fd >= 0) {
		image->kind = IMAGE_LAYERS;
		return !container->write ? 0
					 : FAIL(failure, FAILURE_IMAGE_READ_ONLY, 0, "%s", container->image);
	}
	image->fd = open(container->image, O_PATH | O_CLOEXEC);
	if (image->fd < 0 || fstat(image->fd, &status) < 0)
		return image_missing(container, errno, failure);
	if (S_ISDIR(status.st_mode)) {
		image->kind = is_host_root(&status) ? IMAGE_HOST : IMAGE_DIRECTORY;
		return 0;
	}
	image->kind = IMAGE_FILE;
	if (!S_ISREG(status.st_mode))
		return FAIL(failure, FAILURE_IMAGE_KIND, 0, "%s", container->image);
	return file_open(image, container, failure);
}

/* Attach the directory onto itself, so that its top is a mount of its own. */
static int directory_attach(const char *path, struct failure *failure)
{
	CLEANUP_FD int point = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (point < 0)
		return FAIL(failure, FAILURE_IMAGE_UNREADABLE, errno, "%s", path);
	const int top = kernel_tree_clone(point, ".");
	if (top >= 0 && kernel_tree_attach(top, point) == 0)
		return top;
	if (top >= 0)
		close(top);
	if (mounts_bind(point, ".", point, failure) < 0)
		return -1;
	const int again = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return again >= 0 ? again : FAIL(failure, FAILURE_IMAGE_UNREADABLE, errno, "%s", path);
}

/* Where users mount no overlays, or none of this file system, images have two layers, the upper one made by
 * ch-image (flatten.py): mount points, which are made anyway, and /ch. Of an image with more the failure
 * stays what it was. */
static int lower_layer_attach(struct image *image, const char *shown, struct failure *failure)
{
	char *colon = strchr(image->layers, ':');

	if (colon == NULL || strchr(colon + 1, ':') != NULL)
		return -1;
	*colon = '\0';
	image->metadata = openat(image->store, image->layers, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (image->metadata < 0)
		return FAIL(failure, FAILURE_STORE, errno, "%s: layer %s", shown, image->layers);
	return overlay_layers(image->store, image->fd, colon + 1, shown, failure);
}

/* Storage once more: a descriptor leads to the mounts of the namespace it was opened in. */
static int layers_attach(struct image *image, const struct container *container, struct failure *failure)
{
	close(image->fd);
	close(image->store);
	image->store = -1;
	image->fd = store_find(container, &image->store);
	if (image->fd < 0)
		return FAIL(failure, FAILURE_STORE, errno, "%s", container->image);
	if (store_layers(image->fd, container->image, image->layers, sizeof image->layers, failure) < 0)
		return -1;
	const int top = overlay_layers(image->store, image->fd, image->layers, container->image, failure);
	return top >= 0 || (failure->id != FAILURE_OVERLAY_DENIED && failure->id != FAILURE_OVERLAY)
		       ? top
		       : lower_layer_attach(image, container->image, failure);
}

/* Mount, tell the server to begin, and wait for its first answer. */
static int file_attach(struct image *image, const struct container *container, struct failure *failure)
{
	const bool started = image->mount >= 0;
	const int top = fuse_mount_attach(image->mount, image->device, container->uid, container->gid,
					  container->image, failure);
	char complaint[512];
	struct stat status;

	image->mount = -1;
	if (top < 0)
		return -1;
	if (!started)
		keeper_go(&image->keeper);
	/* While we hold the device open, nobody would notice that the server is dead. */
	close(image->device);
	image->device = -1;
	if (fstat(top, &status) == 0)
		return top;
	const int error = errno;
	keeper_complaint(&image->keeper, complaint, sizeof complaint);
	close(top);
	return FAIL(failure, FAILURE_SERVER, error, "%s: %s%s%s", container->image,
		    image->file.server->program, complaint[0] == '\0' ? "" : ": ", complaint);
}

int image_attach(struct image *image, const struct container *container, struct assembly *assembly,
		 struct failure *failure)
{
	switch (image->kind) {
	case IMAGE_DIRECTORY:
		assembly->root = directory_attach(container->image, failure);
		break;
	case IMAGE_LAYERS:
		assembly->root = layers_attach(image, container, failure);
		break;
	case IMAGE_FILE:
		assembly->root = file_attach(image, container, failure);
		break;
	case IMAGE_HOST:
		assembly->root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
		break;
	}
	return assembly->root < 0 ? -1 : 0;
}

void image_close(struct image *image)
{
	keeper_reap(&image->keeper);

	const int fds[] = {image->fd,	 image->store,	   image->metadata,	   image->device,
			   image->mount, image->keeper.go, image->keeper.complaint};

	for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}
