/* What kind of file system an image file holds, and where in the file it begins. */
#ifndef CHLAUNCH_IMAGE_FILE_H
#define CHLAUNCH_IMAGE_FILE_H

#include <stdint.h>

#include "failure.h"

/* The stock program that serves a kind of file system through FUSE. */
struct image_server {
	const char *program;
	const char *package; /* that has it, as distributions call it */
	const char *offset;  /* the option for where the file system begins, a printf format */
	const char *single;  /* the option for a single thread; NULL: it has no more */
	const char *owner;   /* what stands in the program's file if it takes -o uid=N,gid=N */
};

/* What an image file is. */
struct image_file {
	const struct image_server *server;
	uint64_t offset; /* where in the file its file system begins */
	uint32_t owner;	 /* the one ID that all files in it have, as user and group; 0 if there are several */
};

/* Look at the header of the image file behind fd. */
int image_file_probe(int fd, const char *shown, struct image_file *file, struct failure *failure);

#endif
