/* The process that stays behind for a FUSE image: it starts the image's server and notices if that dies. */
#ifndef CHLAUNCH_KEEPER_H
#define CHLAUNCH_KEEPER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "failure.h"
#include "image_file.h"
#include "rendezvous.h"

struct keeper {
	int go;	       /* a byte written here: the mount is there, start the server */
	int complaint; /* what the server says against starting */
	pid_t child;   /* that made the keeper; 0: none */
};

struct keeper_work {
	const char *program; /* path of the server */
	const struct image_file *file;
	bool single;
	int image;
	int device;	/* /dev/fuse */
	int mount;	/* what it serves; -1: not made yet */
	bool set_owner; /* tell the server whose the files are, uid's and gid's */
	uid_t uid;
	gid_t gid;
	const struct rendezvous
		*rendezvous; /* where those who use the image are recorded; NULL: this one only */
	const char *shown;   /* the image, in messages */
};

/* Path of the image's server: as the shell would find it, else where distributions put it. */
int keeper_program(const struct image_server *server, char *path, size_t size, const char *shown,
		   struct failure *failure);

/* Does the program take -o uid=N,gid=N? squashfuse does since 0.2.0, and doesn't tell. */
bool keeper_sets_owner(const struct image_server *server, const char *path);

/* Start it, in the present namespaces, where it stays. */
int keeper_start(struct keeper *keeper, const struct keeper_work *work, struct failure *failure);

/* Before the command begins, which must not find a child that it never made. */
void keeper_reap(const struct keeper *keeper);

/* The mount is made: let the server begin. */
void keeper_go(const struct keeper *keeper);

/* What the server said before it died, its first line; "" if it said nothing. */
void keeper_complaint(const struct keeper *keeper, char *text, size_t size);

#endif
