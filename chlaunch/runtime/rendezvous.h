/* Where the ranks of a node that share a tag meet: a locked file that names living ranks and their
 * namespaces. */
#ifndef CHLAUNCH_RENDEZVOUS_H
#define CHLAUNCH_RENDEZVOUS_H

#include <stdint.h>

#include "container.h"
#include "failure.h"
#include "trace.h"

/* Whom a rank found, and so what it has entered already. */
enum meeting {
	MEETING_NOBODY, /* nothing entered: make both namespaces */
	MEETING_STEP, /* ranks of another container: their user namespace entered, make the mount namespace */
	MEETING_CONTAINER, /* ranks of the same container: both namespaces entered */
};

struct rendezvous_header {
	uint64_t format;
	uint64_t user_namespace; /* inode of the one user namespace of this tag */
	uint32_t uid, gid;	 /* as they are called in it */
	uint32_t member_count;
	uint32_t unused;
};

struct rendezvous_member {
	uint64_t mount_namespace; /* inode */
	uint64_t container;	  /* hash of what makes the mount namespace: image, binds, … */
	uint64_t start;		  /* of the process, in clock ticks since boot */
	uint64_t instance;	  /* which making of that container: its maker's PID and start */
	int32_t pid;		  /* 0: a free place */
	uint32_t unused;
};

struct rendezvous {
	char name[256]; /* of the file, in whichever directory */
	int directory;
	int lock; /* the file whose flock is held */
	int data; /* the file with the records: the same, unless its file system is full */
	struct rendezvous_header header;
	struct rendezvous_member *members;
	struct rendezvous_member self;
};

/* Those who are in this process's container, now or later: what a process needs to find them. */
struct rendezvous_members {
	int directory; /* of the file; -1: only this process is in it */
	char name[256];
	struct rendezvous_member self;
};

/* Take the tag's lock and enter what a living member offers. The lock is held on return, until
 * rendezvous_leave. */
int rendezvous_enter(struct rendezvous *rendezvous, const struct container *container, enum meeting *meeting,
		     struct trace *trace, struct failure *failure);

/* NULL: nobody joins this process. */
struct rendezvous_members rendezvous_members(const struct rendezvous *rendezvous);

/* Tell those who live why, the first of them in words on its standard error, and kill all. Members that have
 * not become their command yet get a moment to fail by themselves. */
void rendezvous_members_end(const struct rendezvous_members *members, const struct failure *why);

/* Record this process as a member, and let go of the lock. */
int rendezvous_leave(struct rendezvous *rendezvous, enum meeting meeting, struct failure *failure);

#endif
