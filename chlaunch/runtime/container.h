/* The container as plain data, and the one way into it. Same fields, names and order as Python's Container.
 */
#ifndef CHLAUNCH_CONTAINER_H
#define CHLAUNCH_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "failure.h"

enum bind_kind {
	BIND_PATH,
	BIND_LAYERS, /* several directories as one */
	BIND_TMPFS,
};

struct bind {
	const char *source; /* on the host; an optional one may begin with $NAME, a variable of the node.
			     * BIND_LAYERS: DIR[:DIR...], the topmost first. BIND_TMPFS: its size; NULL: the
			     * kernel's */
	const char *target; /* in the container, absolute */
	bool optional;	    /* left out where the source does not exist */
	bool read_only;
	enum bind_kind kind;
};

enum variable_change_kind {
	VARIABLE_SET,	   /* name=value; $X items of the value are expanded */
	VARIABLE_UNSET,	   /* every variable whose name matches the glob in name */
	VARIABLE_DEFAULT,  /* name=value unless name is set */
	VARIABLE_FILE,	   /* value is a file of NAME=VALUE lines; NULL: the image's own /ch/environment */
	VARIABLE_FILE_NUL, /* the same, with NUL characters in place of line ends */
};

struct variable_change {
	enum variable_change_kind kind;
	const char *name;
	const char *value;
	bool literal; /* nothing is expanded */
};

struct container {
	const char *image;   /* a path, or a name in storage */
	const char *storage; /* ch-image's; NULL: $CH_IMAGE_STORAGE, else /var/tmp/$USER.ch */
	struct bind *binds;
	size_t bind_count;
	const char *directory;	 /* where the command starts, in the container */
	bool directory_optional; /* start in / where directory cannot be entered */
	uid_t uid;
	gid_t gid;
	bool write;
	const char *write_fake; /* size of the tmpfs that takes what is written, as in tmpfs(5); NULL: none */
	bool write_fake_rank;	/* each rank has its own; else those who join share it */
	const char *write_to;	/* directory that takes what is written and keeps it; NULL: none */
	bool private_tmp;	/* an empty /tmp, in place of the host's */
	bool keep_tmp;		/* the image's own /tmp */
	bool home;		/* host's $HOME at /home/$USER */
	bool keep_passwd;	/* the image's own /etc/passwd and /etc/group */
	bool seccomp;		/* privileged calls succeed without doing anything */
	bool fuse_single;	/* one thread serves a FUSE image */
	const char **ld_cache;	/* directories that a new /etc/ld.so.cache covers too */
	size_t ld_cache_count;
	struct variable_change *variables;
	size_t variable_count;
	bool join;
	const char *join_tag; /* NULL: named after the innermost launcher */
	pid_t join_pid;	      /* 0: none */
	const char *trace; /* ADDRESS[,ADDRESS…]:PORT/TOKEN that is told the times of the start; NULL: none */
	char **command;	   /* NULL-terminated; empty, or "-" and arguments: the image's ENTRYPOINT and CMD */
};

/* Become the container's command: returns only on failure, always -1. */
int container_enter(const struct container *container, struct failure *failure);

#endif
