/*
 * Ranks of a node meet, and the late ones enter the namespaces of the early ones.
 *
 * Under the lock, a rank reads who was here before. It enters the namespaces of any member that still lives;
 * if none does, it makes them. Then it adds itself and lets go. Nobody counts, nobody waits for others to
 * arrive, and the file may say anything at all about the dead: a member counts only if a process of that PID
 * and start time is alive and is in the recorded namespaces. Every change of the file is one write after
 * which it is whole, so that a rank may be killed at any instruction.
 */
#include "rendezvous.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "kernel.h"
#include "namespaces.h"
#include "rendezvous_file.h"
#include "rendezvous_name.h"

enum {
	MEMBERS_MOST = 65536, /* more than a node has ranks; what a damaged file may make us read */
	SWEEP_MOST = 8,	      /* dead tags looked at by one creator */
	SWEEP_NAMES = 256,    /* names read for them */
	ENDING_TRIES = 200,
	ENDING_MICROSECONDS = 10000,
};

static const uint64_t FORMAT = 0x3168636e75616c68; /* changes with the layout of the file */

/* When the process started, in clock ticks since boot: field 22 of proc_pid_stat(5). 0: there is none. */
static uint64_t process_start(int pid)
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
static bool member_open(const struct rendezvous *rendezvous, const struct rendezvous_member *member,
			int *user_fd, int *mount_fd)
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
static int records_read(struct rendezvous *rendezvous, struct failure *failure)
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
static int records_find(struct rendezvous *rendezvous, struct failure *failure)
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
static int records_reserve(struct rendezvous *rendezvous, struct failure *failure)
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
static void member_forget(struct rendezvous *rendezvous, size_t index)
{
	struct rendezvous_member *member = &rendezvous->members[index];

	member->pid = 0;
	if (pwrite(rendezvous->data, &member->pid, sizeof member->pid,
		   member_offset(index) + (off_t)offsetof(struct rendezvous_member, pid)) < 0)
		return;
}

/* The PID of any member that lives, 0 if none does. */
static int members_alive(const struct rendezvous *rendezvous)
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

/* Enter the user namespace and, for a member of the same container, the mount namespace. */
static int member_enter(int user_fd, int mount_fd, bool same)
{
	int result = setns(user_fd, CLONE_NEWUSER);

	if (result == 0 && same)
		result = setns(mount_fd, CLONE_NEWNS);
	close(user_fd);
	close(mount_fd);
	return result;
}

/* Try the living members of the same container, or those of others. True if one let us in. */
static bool members_enter(struct rendezvous *rendezvous, bool same, int *alive)
{
	for (size_t i = 0; i < rendezvous->header.member_count; i++) {
		const struct rendezvous_member *member = &rendezvous->members[i];
		int user_fd, mount_fd;

		if (member->pid <= 0 || (member->container == rendezvous->self.container) != same)
			continue;
		if (!member_open(rendezvous, member, &user_fd, &mount_fd)) {
			member_forget(rendezvous, i);
			continue;
		}
		*alive = member->pid;
		if (member_enter(user_fd, mount_fd, same) == 0)
			return true;
	}
	return false;
}

static int meeting_find(struct rendezvous *rendezvous, const struct container *container,
			enum meeting *meeting, struct failure *failure)
{
	const struct rendezvous_header *header = &rendezvous->header;
	const bool ids_fit = header->uid == container->uid && header->gid == container->gid;
	int alive = 0;

	*meeting = MEETING_NOBODY;
	if (!ids_fit) {
		alive = members_alive(rendezvous);
		return alive == 0 ? 0
				  : FAIL(failure, FAILURE_JOIN_IDS, 0, "process %d has uid %u, gid %u", alive,
					 header->uid, header->gid);
	}
	if (members_enter(rendezvous, true, &alive))
		*meeting = MEETING_CONTAINER;
	else if (members_enter(rendezvous, false, &alive))
		*meeting = MEETING_STEP;
	else if (alive != 0)
		return FAIL(failure, FAILURE_JOIN_MEMBERS, errno, "process %d", alive);
	if (alive != 0)
		notice(failure, NOTICE_VERBOSE, "join: entered the namespaces of process %d", alive);
	return 0;
}

/* Remove the file if no member of it lives. */
static void tag_sweep(int directory, const char *name)
{
	struct rendezvous other = {.data = file_lock_idle(directory, name)};
	struct failure ignored = {.notice = NULL};

	if (other.data >= 0 && records_read(&other, &ignored) == 0 && members_alive(&other) == 0)
		unlinkat(directory, name, 0);
	free(other.members);
	if (other.data >= 0)
		close(other.data);
}

/* Look at a few other tags. Only at those of our own namespaces: of others' members we can't know whether
 * they live. */
static void tags_sweep(const struct rendezvous *rendezvous)
{
	const int fd = openat(rendezvous->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	const char *own = strrchr(rendezvous->name, '.');
	const struct dirent *entry;
	int looked_at = 0, names = 0;

	while (stream != NULL && looked_at < SWEEP_MOST && names++ < SWEEP_NAMES &&
	       (entry = readdir(stream)) != NULL) {
		const char *theirs = strrchr(entry->d_name, '.');

		if (theirs != NULL && strcmp(theirs, own) == 0 &&
		    strcmp(entry->d_name, rendezvous->name) != 0) {
			tag_sweep(rendezvous->directory, entry->d_name);
			looked_at++;
		}
	}
	if (stream != NULL)
		closedir(stream);
}

int rendezvous_enter(struct rendezvous *rendezvous, const struct container *container, enum meeting *meeting,
		     struct failure *failure)
{
	memset(rendezvous, 0, sizeof *rendezvous);
	rendezvous->self.container = rendezvous_container(container);
	rendezvous->self.pid = getpid();
	rendezvous->self.start = process_start(rendezvous->self.pid);
	if (rendezvous_name(container, rendezvous->name, sizeof rendezvous->name, failure) < 0 ||
	    file_lock(rendezvous->name, &rendezvous->directory, &rendezvous->lock, failure) < 0 ||
	    records_find(rendezvous, failure) < 0 ||
	    meeting_find(rendezvous, container, meeting, failure) < 0)
		return -1;
	if (*meeting != MEETING_NOBODY)
		return 0;
	tags_sweep(rendezvous); /* now: from inside a namespace we could not look at others' members */
	rendezvous->header =
		(struct rendezvous_header){.format = FORMAT, .uid = container->uid, .gid = container->gid};
	return records_reserve(rendezvous, failure);
}

/* The member first, then the header that counts it: what is half-written is not read. */
static int records_write(const struct rendezvous *rendezvous, size_t index)
{
	const struct rendezvous_header *header = &rendezvous->header;

	if (pwrite(rendezvous->data, &rendezvous->self, sizeof rendezvous->self, member_offset(index)) !=
	    sizeof rendezvous->self)
		return -1;
	return pwrite(rendezvous->data, header, sizeof *header, 0) == sizeof *header ? 0 : -1;
}

/* A joiner's record, in a free place or at the end. Without one it is in the namespaces all the same. */
static void records_add(struct rendezvous *rendezvous, struct failure *failure)
{
	size_t index = 0;

	while (index < rendezvous->header.member_count && rendezvous->members[index].pid > 0)
		index++;
	if (index == rendezvous->header.member_count)
		rendezvous->header.member_count++;
	if (records_write(rendezvous, index) < 0)
		notice(failure, NOTICE_VERBOSE, "join: no room to record this rank: %s", strerror(errno));
}

int rendezvous_leave(struct rendezvous *rendezvous, enum meeting meeting, struct failure *failure)
{
	int result = 0;

	rendezvous->self.mount_namespace = namespace_own("mnt");
	if (meeting == MEETING_NOBODY) {
		rendezvous->header.user_namespace = namespace_own("user");
		rendezvous->header.member_count = 1;
		if (records_write(rendezvous, 0) < 0)
			result = FAIL(failure, FAILURE_JOIN_FILE, errno, "%s", rendezvous->name);
	} else {
		records_add(rendezvous, failure);
	}
	if (rendezvous->data != rendezvous->lock)
		close(rendezvous->data);
	close(rendezvous->lock);
	close(rendezvous->directory);
	free(rendezvous->members);
	return result;
}

struct rendezvous_members rendezvous_members(const struct rendezvous *rendezvous)
{
	struct rendezvous_members members = {.directory = -1};

	if (rendezvous == NULL) {
		members.self.pid = getpid();
		members.self.start = process_start(members.self.pid);
		return members;
	}
	members.directory = rendezvous->directory;
	memcpy(members.name, rendezvous->name, sizeof members.name);
	members.self = rendezvous->self;
	return members;
}

/* Does the process still run the program that we run, ch-run? */
static bool process_is_ours(int pid)
{
	struct stat own, its;
	char path[32];

	snprintf(path, sizeof path, "/proc/%d/exe", pid);
	return stat("/proc/self/exe", &own) == 0 && stat(path, &its) == 0 && own.st_dev == its.st_dev &&
	       own.st_ino == its.st_ino;
}

/* Write to the process's own standard error, which we don't have. */
static bool process_tell(int pid, const char *text)
{
	char path[32];

	snprintf(path, sizeof path, "/proc/%d/fd/2", pid);
	CLEANUP_FD int fd = open(path, O_WRONLY | O_APPEND | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	return fd >= 0 && write(fd, text, strlen(text)) > 0;
}

/* Kill the very process that the record is of. Before pidfds (Linux 5.3) a PID must do. */
static void member_kill(const struct rendezvous_member *member)
{
	CLEANUP_FD int process = (int)syscall(KERNEL_PIDFD_OPEN, member->pid, 0);

	if (process_start(member->pid) != member->start)
		return;
	if (process < 0 || syscall(KERNEL_PIDFD_SEND_SIGNAL, process, SIGKILL, NULL, 0) < 0)
		kill(member->pid, SIGKILL);
}

/* True if the member had to be told. */
static bool member_end(const struct rendezvous_member *member, const char *text)
{
	bool told = false;

	for (int i = 0; i < ENDING_TRIES && process_is_ours(member->pid); i++)
		usleep(ENDING_MICROSECONDS);
	if (process_start(member->pid) != member->start)
		return false;
	if (text != NULL)
		told = process_tell(member->pid, text);
	member_kill(member);
	return told;
}

/* The members on record, with no lock held any more; none where there is no file. */
static struct rendezvous records_copy(const struct rendezvous_members *members)
{
	struct rendezvous copy = {.directory = members->directory, .lock = -1};
	struct failure ignored = {.notice = NULL};

	if (members->directory < 0)
		return copy;
	memcpy(copy.name, members->name, sizeof copy.name);
	copy.lock = openat(copy.directory, copy.name, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (copy.lock < 0 || flock(copy.lock, LOCK_EX) < 0 || records_find(&copy, &ignored) < 0)
		copy.header.member_count = 0;
	if (copy.data > 0 && copy.data != copy.lock)
		close(copy.data);
	if (copy.lock >= 0)
		close(copy.lock);
	return copy;
}

void rendezvous_members_end(const struct rendezvous_members *members, const struct failure *why)
{
	struct rendezvous copy = records_copy(members);
	char text[2048];
	bool told = false;

	failure_lines(why, text, sizeof text);
	/* The first of them may have failed before it was recorded. */
	told = member_end(&members->self, text);
	for (size_t i = 0; i < copy.header.member_count; i++) {
		const struct rendezvous_member *member = &copy.members[i];

		if (member->pid > 0 && member->container == members->self.container)
			told |= member_end(member, told ? NULL : text);
	}
	free(copy.members);
}
