/* The records of a rendezvous file: who is in which namespaces, read, checked against the living, written. */
#ifndef CHLAUNCH_RENDEZVOUS_RECORDS_H
#define CHLAUNCH_RENDEZVOUS_RECORDS_H

#include "failure.h"
#include "rendezvous.h"

/* When the process started, in clock ticks since boot: field 22 of proc_pid_stat(5). 0: there is none. */
uint64_t process_start(int pid);

/* Does the very process live that the record is of? */
bool member_lives(const struct rendezvous_member *member);

/* The member's namespaces, opened; false if it does not live. */
bool member_open(const struct rendezvous *rendezvous, const struct rendezvous_member *member, int *user_fd,
		 int *mount_fd);

/* The PID of any member that lives, 0 if none does. */
int members_alive(const struct rendezvous *rendezvous);

/* A dead member's place is free for the next. */
void member_forget(struct rendezvous *rendezvous, size_t index);

/* Read header and members of rendezvous->data; members is to be freed. */
int records_read(struct rendezvous *rendezvous, struct failure *failure);

/* Find the file with the records for rendezvous->lock, then the same. */
int records_find(struct rendezvous *rendezvous, struct failure *failure);

/* Take room for a creator's records before it makes anything. */
int records_reserve(struct rendezvous *rendezvous, struct failure *failure);

/* Write rendezvous->self as member number index, and the header; -1 and errno. */
int records_write(const struct rendezvous *rendezvous, size_t index);

/* An empty header of this release's format. */
struct rendezvous_header records_header(const struct container *container);

#endif
