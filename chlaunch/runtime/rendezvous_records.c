/*
 * The records of a rendezvous file. The file may say anything at all about the dead: a member counts only if
 * a process of that PID and start time is alive and is in the recorded namespaces. Every change of the file
 * is one write after which it is whole, so that a rank may be killed at any instruction.
 */
#include "rendezvous_records.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "rendezvous_file.h"

enum { MEMBERS_MOST = 65536 }; /* more than a node has ranks; what a damaged file may make us read */

static const uint64_t FORMAT = 0x3268636e75616c68; /* changes with the layout of the file */

/* When the process started, in clock ticks since boot: field 22 of proc_pid_stat(5). 0: there is none. */
uint64_t process_start(int pid)
{
	char path[32], text[1024];
	unsigned long long start = 0;
	const char *after;
	ssize_t length;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || (length = read(fd, text, sizeof text - 1)) <= 0)
		return 0;
	text[length] = '\0';
	after = strrchr(text, ')'); /* the name before it may hold anything */
	if (after == NULL ||
	    sscanf(after,
		   ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
		   &start) != 1)
		return 0;
	return start;
}

/* Descriptor of a namespace of the process, if it is the one with that inode; -1. */
static int namespace_open(int pid, const char *kind, uint64_t inode)
{
	char path[64];
	struct stat status;
	int fd;

	snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, kind);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && fstat(fd, &status) == 0 && status.st_ino == inode)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

/*
 * The member's namespaces, opened. The descriptors come first, then the check that the recorded process
 * lives: so they are its own and not those of a later process with the same PID, and hold the namespaces if
 * it ends now.
 */
bool member_open(const struct rendezvous *rendezvous, const struct rendezvous_member *member, int *user_fd,
		 int *mount_fd)
{
	*mount_fd = -1;
	*user_fd = namespace_open(member->pid, "user", rendezvous->header.user_namespace);
	if (*user_fd >= 0)
		*mount_fd = namespace_open(member->pid, "mnt", member->mount_namespace);
	if (*mount_fd >= 0 && process_start(member->pid) == member->start)
		return true;
	if (*user_fd >= 0)
		close(*user_fd);
	if (*mount_fd >= 0)
		close(*mount_fd);
	return false;
}

static off_t member_offset(size_t index)
{
	return (off_t)(sizeof(struct rendezvous_header) + index * sizeof(struct rendezvous_member));
}

/* Read the records; a file that makes no sense counts as empty: it is ours alone, so it is an old or torn
 * one. */
int records_read(struct rendezvous *rendezvous, struct failure *failure)
{
	struct rendezvous_header *header = &rendezvous->header;
	size_t size;

	if (pread(rendezvous->data, header, sizeof *header, 0) != sizeof *header ||
	    header->format != FORMAT || header->member_count > MEMBERS_MOST)
		memset(header, 0, sizeof *header);
	size = header->member_count * sizeof *rendezvous->members;
	rendezvous->members = calloc(header->member_count + 1, sizeof *rendezvous->members);
	if (rendezvous->members == NULL)
		return FAIL(failure, FAILURE_MEMORY, errno, "rendezvous");
	if (pread(rendezvous->data, rendezvous->members, size, member_offset(0)) != (ssize_t)size)
		header->member_count = 0;
	return 0;
}

/* Where the lock's file system is full, the records are in a file of the same name at a later place. */
int records_find(struct rendezvous *rendezvous, struct failure *failure)
{
	struct stat status;
	int place = 1, elsewhere = -1;

	rendezvous->data = rendezvous->lock;
	if (fstat(rendezvous->lock, &status) == 0 && status.st_size == 0)
		elsewhere = file_elsewhere(rendezvous->name, 0, &place);
	if (elsewhere >= 0)
		rendezvous->data = elsewhere;
	return records_read(rendezvous, failure);
}

/* Room for a creator's records, taken before it makes anything: later it sees the container's file systems
 * only. */
int records_reserve(struct rendezvous *rendezvous, struct failure *failure)
{
	const struct rendezvous_header *header = &rendezvous->header;

	for (int place = 1; pwrite(rendezvous->data, header, sizeof *header, 0) != sizeof *header; place++) {
		const int error = errno;

		if (rendezvous->data != rendezvous->lock)
			close(rendezvous->data);
		rendezvous->data = file_elsewhere(rendezvous->name, 1, &place);
		if (rendezvous->data < 0)
			return FAIL(failure, FAILURE_JOIN_FILE, error, "%s", rendezvous->name);
	}
	return 0;
}

/* A dead member's place is free for the next. If this write is lost, it is found dead again. */
void member_forget(struct rendezvous *rendezvous, size_t index)
{
	struct rendezvous_member *member = &rendezvous->members[index];

	member->pid = 0;
	if (pwrite(rendezvous->data, &member->pid, sizeof member->pid,
		   member_offset(index) + (off_t)offsetof(struct rendezvous_member, pid)) < 0)
		return;
}

/* The PID of any member that lives, 0 if none does. */
int members_alive(const struct rendezvous *rendezvous)
{
	for (size_t i = 0; i < rendezvous->header.member_count; i++) {
		const struct rendezvous_member *member = &rendezvous->members[i];
		int user_fd, mount_fd;

		if (member->pid > 0 && member_open(rendezvous, member, &user_fd, &mount_fd)) {
			close(user_fd);
			close(mount_fd);
			return member->pid;
		}
	}
	return 0;
}

/* The member first, then the header that counts it: what is half-written is not read. */
int records_write(const struct rendezvous *rendezvous, size_t index)
{
	const struct rendezvous_header *header = &rendezvous->header;

	if (pwrite(rendezvous->data, &rendezvous->self, sizeof rendezvous->self, member_offset(index)) !=
	    sizeof rendezvous->self)
		return -1;
	return pwrite(rendezvous->data, header, sizeof *header, 0) == sizeof *header ? 0 : -1;
}

struct rendezvous_header records_header(const struct container *container)
{
	return (struct rendezvous_header){.format = FORMAT, .uid = container->uid, .gid = container->gid};
}
