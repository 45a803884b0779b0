/* The end of a container whose image is gone: tell its members why, and kill them. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "kernel.h"
#include "rendezvous.h"
#include "rendezvous_records.h"

/* How long a member that is not its command yet may take to fail by itself, and a word to be taken. */
enum {
	ENDING_TRIES = 200,
	ENDING_MICROSECONDS = 10000,
	TELLING_MILLISECONDS = 1000,
};

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

/*
 * Write to the process's own standard error, which we don't have. A pipe that root made can't be opened again
 * by the user, so its descriptor is copied (Linux 5.6); where a security module forbids that, opening may
 * still do.
 */
static bool process_tell(int pid, const char *text)
{
	CLEANUP_FD int process = (int)syscall(KERNEL_PIDFD_OPEN, pid, 0);
	CLEANUP_FD int fd = process < 0 ? -1 : (int)syscall(KERNEL_PIDFD_GETFD, process, STDERR_FILENO, 0);
	char path[32];

	if (fd >= 0)
		/* Nobody may be reading: then it stays unsaid. */
		return poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, TELLING_MILLISECONDS) == 1 &&
		       write(fd, text, strlen(text)) > 0;
	snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, STDERR_FILENO);
	CLEANUP_FD int opened = open(path, O_WRONLY | O_APPEND | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	return opened >= 0 && write(opened, text, strlen(text)) > 0;
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

		if (member->pid > 0 && member->instance == members->self.instance)
			told |= member_end(member, told ? NULL : text);
	}
	free(copy.members);
}
