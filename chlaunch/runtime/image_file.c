/*
 * What kind of file system an image file holds: SquashFS, EROFS, or a SIF that holds SquashFS.
 *
 * Headers come from anywhere: every number is checked before it is used, so that a damaged image is refused
 * here with its reason, and not by a server that says nothing. Formats:
 * Documentation/filesystems/squashfs.rst and fs/squashfs/squashfs_fs.h, fs/erofs/erofs_fs.h, and sif's
 * pkg/sif (all little-endian).
 */
#include "image_file.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	SQUASHFS_HEADER = 96,
	SQUASHFS_MAGIC = 0x73717368,
	SQUASHFS_COMPRESSIONS = 6, /* gzip lzma lzo xz lz4 zstd */
	EROFS_AT = 1024,
	EROFS_HEADER = 128,
	EROFS_BLOCKS_AT = 36,
	EROFS_BLOCK_LOG_AT = 12,
	SIF_HEADER = 128,
	SIF_MAGIC_AT = 32,
	SIF_TOTAL_AT = 88, /* number of descriptors */
	SIF_DESCRIPTORS_AT = 96,
	SIF_DESCRIPTOR = 585,
	SIF_DESCRIPTORS_MOST = 1024,
	SIF_PARTITION = 0x4004,
	SIF_FILE_SYSTEM_SQUASHFS = 1,
	SIF_FILE_SYSTEM_ENCRYPTED = 5,
	SIF_ROLE_PRIMARY = 2, /* the image's root file system */
};

static const unsigned EROFS_MAGIC = 0xe0f5e1e2;

static const struct image_server squashfs_server = {"squashfuse_ll", "squashfuse", "offset=%ju", "-s",
						    "uid=%"};
static const struct image_server erofs_server = {"erofsfuse", "erofsfuse or erofs-utils", "--offset=%ju",
						 NULL, ""}; /* libfuse's own option */

static uint32_t read32(const unsigned char *bytes)
{
	uint32_t value;

	memcpy(&value, bytes, sizeof value);
	return le32toh(value);
}

static uint64_t read64(const unsigned char *bytes)
{
	uint64_t value;

	memcpy(&value, bytes, sizeof value);
	return le64toh(value);
}

static int damaged(const char *shown, const char *what, struct failure *failure)
{
	return FAIL(failure, FAILURE_IMAGE_DAMAGED, 0, "%s: %s", shown, what);
}

static int shortened(const char *shown, uint64_t has, uint64_t wants, struct failure *failure)
{
	return FAIL(failure, FAILURE_IMAGE_DAMAGED, 0, "%s: it ends after %ju of %ju bytes", shown,
		    (uintmax_t)has, (uintmax_t)wants);
}

/* The only ID in the SquashFS's table, if there is only one and it is not compressed (four bytes never are).
 */
static uint32_t squashfs_owner(int fd, const unsigned char *header, uint64_t offset)
{
	const uint64_t table = read64(header + 48);
	unsigned char bytes[8];

	if ((read32(header + 24) >> 16) != 1 || table > INT64_MAX - offset ||
	    pread(fd, bytes, 8, (off_t)(offset + table)) != 8 || read64(bytes) > INT64_MAX - offset ||
	    pread(fd, bytes, 6, (off_t)(offset + read64(bytes))) != 6 || bytes[0] != 4 || bytes[1] != 0x80)
		return 0;
	return read32(bytes + 2);
}

/* The SquashFS with this header, at offset of a file with size bytes. 0 if it is one that can be served. */
static int squashfs_check(const char *shown, const unsigned char *header, uint64_t offset, uint64_t size,
			  struct failure *failure)
{
	const uint32_t block = read32(header + 12), block_log = read32(header + 20) >> 16;
	const uint32_t compression = read32(header + 20) & 0xffff;
	const uint64_t used = read64(header + 40);

	if (offset > size || size - offset < SQUASHFS_HEADER)
		return shortened(shown, size, offset + SQUASHFS_HEADER, failure);
	if (read32(header + 28) != 4) /* major in the low half, minor in the high one */
		return damaged(shown, "not of SquashFS version 4.0", failure);
	if (block_log < 12 || block_log > 20 || block != 1U << block_log)
		return damaged(shown, "its SquashFS block size is impossible", failure);
	if (compression < 1 || compression > SQUASHFS_COMPRESSIONS)
		return damaged(shown, "its SquashFS compression is unknown", failure);
	if (used > size - offset)
		return shortened(shown, size - offset, used, failure);
	return 0;
}

static int erofs_check(const char *shown, const unsigned char *header, uint64_t size, struct failure *failure)
{
	const unsigned block_log = header[EROFS_BLOCK_LOG_AT];
	const uint64_t blocks = read32(header + EROFS_BLOCKS_AT);

	if (block_log < 9 || block_log > 16)
		return damaged(shown, "its EROFS block size is impossible", failure);
	if (blocks << block_log > size)
		return shortened(shown, size, blocks << block_log, failure);
	return 0;
}

/* Offset of the root file system's partition among a SIF's descriptors; 0 and a failure set if there is none.
 */
static uint64_t sif_partition(int fd, const char *shown, const unsigned char *header, uint64_t size,
			      struct failure *failure)
{
	const uint64_t count = read64(header + SIF_TOTAL_AT), at = read64(header + SIF_DESCRIPTORS_AT);
	const char *why = "it has no partition with a root file system";
	unsigned char descriptor[SIF_DESCRIPTOR];

	if (count > SIF_DESCRIPTORS_MOST || at > size)
		why = "its SIF header makes no sense";
	for (uint64_t i = 0; i < count && count <= SIF_DESCRIPTORS_MOST && at <= size; i++) {
		if (pread(fd, descriptor, sizeof descriptor, (off_t)(at + i * sizeof descriptor)) !=
		    sizeof descriptor) {
			why = "it ends within its SIF descriptors";
			break;
		}
		/* type, used, id, group, link, offset, size, …, name, and in a partition: file system, role
		 */
		if (read32(descriptor) != SIF_PARTITION || descriptor[4] == 0 ||
		    read32(descriptor + 205) != SIF_ROLE_PRIMARY)
			continue;
		if (read32(descriptor + 201) == SIF_FILE_SYSTEM_SQUASHFS && read64(descriptor + 17) > 0)
			return read64(descriptor + 17);
		why = read32(descriptor + 201) == SIF_FILE_SYSTEM_ENCRYPTED
			      ? "its root file system is encrypted"
			      : "its root file system is no SquashFS";
	}
	damaged(shown, why, failure);
	return 0;
}

int image_file_probe(int fd, const char *shown, struct image_file *file, struct failure *failure)
{
	unsigned char start[EROFS_AT + EROFS_HEADER] = {0};
	struct stat status;
	ssize_t length;
	uint64_t size;

	if (fstat(fd, &status) < 0 || (length = pread(fd, start, sizeof start, 0)) < 0)
		return FAIL(failure, FAILURE_IMAGE_UNREADABLE, errno, "%s", shown);
	size = (uint64_t)status.st_size;
	*file = (struct image_file){.offset = 0};
	if (memcmp(start + SIF_MAGIC_AT, "SIF_MAGIC", 10) == 0) {
		file->offset = sif_partition(fd, shown, start, size, failure);
		if (file->offset == 0)
			return -1;
		if (file->offset < size &&
		    (pread(fd, start, SQUASHFS_HEADER, (off_t)file->offset) != SQUASHFS_HEADER ||
		     read32(start) != SQUASHFS_MAGIC))
			return damaged(shown, "there is no SquashFS where its SIF header says", failure);
	}
	if (file->offset > 0 || read32(start) == SQUASHFS_MAGIC) {
		file->server = &squashfs_server;
		file->owner = squashfs_owner(fd, start, file->offset);
		return squashfs_check(shown, start, file->offset, size, failure);
	}
	if (length == sizeof start && read32(start + EROFS_AT) == EROFS_MAGIC) {
		file->server = &erofs_server;
		return erofs_check(shown, start + EROFS_AT, size, failure);
	}
	return FAIL(failure, FAILURE_IMAGE_KIND, 0, "%s", shown);
}
