/*
 * What a Slurm job of the user left on this node, removed: plugins/epilog runs this, as the user, when a job
 * has ended.
 *
 * Everything that is looked at may have been made by the user, and may change while it is looked at. So this
 * has the user's rights and no others, follows no link, and knows a process by a descriptor of its /proc
 * directory: what is read and what is signalled is then the same process, whoever gets its number later.
 */
#include "clean.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "kernel.h"
#include "rendezvous.h"
#include "rendezvous_file.h"
#include "rendezvous_records.h"

enum { /* how long one who was killed may take to let go of a file */
       ENDING_TRIES = 100,
       ENDING_MICROSECONDS = 10000,
};

#define STAGE_DIRECTORY "/tmp" /* slurm/staging.py */

/* Processes of ours that are not the user's commands, and the variable that tells of which job they are. */
static const struct helper {
	const char *name;
	const char *variable;
} helpers[] = {
	{"ch-run", "SLURM_JOB_ID"}, /* it is no command yet: it waits, or was stopped */
	{"ch-run-keeper", "SLURM_JOB_ID"},
	{"squashfuse_ll", "CHLAUNCH_JOB"}, /* keeper.c sets it; one that the user started has none */
	{"erofsfuse", "CHLAUNCH_JOB"},
};

/* Descriptor of /proc/PID, if the process is the user's; -1. */
static int process_open(int pid)
{
	char path[32];
	struct stat status;
	int fd;

	snprintf(path, sizeof path, "/proc/%d", pid);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 && fstat(fd, &status) == 0 && status.st_uid == geteuid())
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

static FILE *process_file(int process, const char *name)
{
	const int fd = openat(process, name, O_RDONLY | O_CLOEXEC);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");

	if (file == NULL && fd >= 0)
		close(fd);
	return file;
}

/* The row of helpers that has the process's name; NULL. */
static const struct helper *process_helper(int process)
{
	FILE *file = process_file(process, "comm");
	char name[32] = "";

	if (file == NULL || fgets(name, sizeof name, file) == NULL)
		name[0] = '\0';
	if (file != NULL)
		fclose(file);
	name[strcspn(name, "\n")] = '\0';
	for (size_t i = 0; i < sizeof helpers / sizeof *helpers; i++)
		if (strcmp(name, helpers[i].name) == 0)
			return &helpers[i];
	return NULL;
}

/* Was the process started with this variable? */
static bool process_started_with(int process, const char *variable)
{
	FILE *file = process_file(process, "environ");
	char *item = NULL;
	size_t size = 0;
	bool found = false;

	while (file != NULL && !found && getdelim(&item, &size, '\0', file) > 0)
		found = strcmp(item, variable) == 0;
	free(item);
	if (file != NULL)
		fclose(file);
	return found;
}

/* A descriptor of /proc/PID does as a pidfd since Linux 5.1: pidfd_send_signal(2). Before, nobody is
 * signalled.
 */
static void process_kill(int process, int pid, const char *name, struct failure *failure)
{
	if (syscall(KERNEL_PIDFD_SEND_SIGNAL, process, SIGKILL, NULL, 0) == 0)
		notice(failure, NOTICE_VERBOSE, "clean: ended process %d, %s", pid, name);
	else if (errno != ESRCH)
		notice(failure, NOTICE_WARNING, "clean: can't end process %d, %s: %s", pid, name,
		       strerror(errno));
}

static void helper_end(int pid, unsigned job, struct failure *failure)
{
	CLEANUP_FD int process = process_open(pid);
	const struct helper *helper = process < 0 ? NULL : process_helper(process);
	char variable[64];

	if (helper == NULL || pid == getpid())
		return;
	snprintf(variable, sizeof variable, "%s=%u", helper->variable, job);
	if (process_started_with(process, variable))
		process_kill(process, pid, helper->name, failure);
}

static void helpers_end(unsigned job, struct failure *failure)
{
	DIR *stream = opendir("/proc");
	const struct dirent *entry;

	while (stream != NULL && (entry = readdir(stream)) != NULL) {
		const int pid = atoi(entry->d_name);

		if (pid > 0)
			helper_end(pid, job, failure);
	}
	if (stream != NULL)
		closedir(stream);
}

/*
 * The descriptor comes first: if the recorded process lives then, and its start time tells so afterwards, the
 * descriptor is its own.
 */
static void member_end(const struct rendezvous *rendezvous, const struct rendezvous_member *member,
		       struct failure *failure)
{
	CLEANUP_FD int process = member->pid > 0 ? process_open(member->pid) : -1;
	int user_fd, mount_fd;

	if (process < 0 || !member_open(rendezvous, member, &user_fd, &mount_fd))
		return;
	close(user_fd);
	close(mount_fd);
	process_kill(process, member->pid, "a rank", failure);
}

/* The lock of a file whose holder may just have been killed: its descriptor, or -1. */
static int file_lock_patient(int directory, const char *name)
{
	int fd = -1;

	for (int i = 0;
	     i < ENDING_TRIES && (fd = file_lock_idle(directory, name)) < 0 && errno == EWOULDBLOCK; i++)
		usleep(ENDING_MICROSECONDS);
	return fd;
}

/* End the ranks on record, and remove the file if all are gone. */
static void tag_clean(int directory, const char *name, struct failure *failure)
{
	struct rendezvous rendezvous = {.lock = file_lock_patient(directory, name)};
	struct failure ignored = {.notice = NULL};
	struct stat status;

	if (rendezvous.lock < 0)
		return;
	snprintf(rendezvous.name, sizeof rendezvous.name, "%s", name);
	if (fstat(rendezvous.lock, &status) == 0 && S_ISREG(status.st_mode) &&
	    records_find(&rendezvous, &ignored) == 0) {
		for (size_t i = 0; i < rendezvous.header.member_count; i++)
			member_end(&rendezvous, &rendezvous.members[i], failure);
		for (int i = 0; i < ENDING_TRIES && members_alive(&rendezvous) != 0; i++)
			usleep(ENDING_MICROSECONDS);
		if (members_alive(&rendezvous) == 0 && unlinkat(directory, name, 0) == 0)
			notice(failure, NOTICE_VERBOSE, "clean: removed %s", name);
	}
	free(rendezvous.members);
	if (rendezvous.data > 0 && rendezvous.data != rendezvous.lock)
		close(rendezvous.data);
	close(rendezvous.lock);
}

/* JOB.TAG.USERNS-PIDNS is the job's. N.USERNS-PIDNS is no job's, whatever N is: see rendezvous_name.c. */
static bool name_is_of(const char *name, unsigned job)
{
	char start[16];
	const size_t length = (size_t)snprintf(start, sizeof start, "%u.", job);

	return strncmp(name, start, length) == 0 && strchr(name + length, '.') != NULL;
}

static void place_clean(int directory, unsigned job, struct failure *failure)
{
	DIR *stream = fdopendir(directory);
	const struct dirent *entry;

	while (stream != NULL && (entry = readdir(stream)) != NULL)
		if (name_is_of(entry->d_name, job))
			tag_clean(directory, entry->d_name, failure);
	if (stream != NULL)
		closedir(stream);
	else
		close(directory);
}

/* The copy that a link of the user's tells of: an absolute path that ends with the link's own name. */
static void staged_remove_elsewhere(int directory, const char *name, struct failure *failure)
{
	char path[PATH_MAX];
	const ssize_t length = readlinkat(directory, name, path, sizeof path - 1);
	const char *last;
	struct stat status;

	path[length < 0 ? 0 : length] = '\0';
	last = strrchr(path, '/');
	if (path[0] == '/' && strcmp(last + 1, name) == 0 && lstat(path, &status) == 0 &&
	    S_ISREG(status.st_mode) && status.st_uid == geteuid() && unlink(path) == 0)
		notice(failure, NOTICE_VERBOSE, "clean: removed %s", path);
}

/* An image file that was copied to this node for the job, or what tells where it was copied to. */
static void staged_remove(int directory, const char *name, struct failure *failure)
{
	struct stat status;

	if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) != 0 || status.st_uid != geteuid() ||
	    !(S_ISREG(status.st_mode) || S_ISLNK(status.st_mode)))
		return;
	if (S_ISLNK(status.st_mode))
		staged_remove_elsewhere(directory, name, failure);
	if (unlinkat(directory, name, 0) == 0)
		notice(failure, NOTICE_VERBOSE, "clean: removed %s/%s", STAGE_DIRECTORY, name);
}

/* What ch-launch --ch-stage left: see slurm/staging.py. In a sticky directory nobody can remove what is
 * another's, nor put it there under the user's name.
 */
static void staged_clean(unsigned job, struct failure *failure)
{
	DIR *stream = opendir(STAGE_DIRECTORY);
	const struct dirent *entry;
	char start[32];
	const size_t length = (size_t)snprintf(start, sizeof start, "chlaunch-%u-", job);

	while (stream != NULL && (entry = readdir(stream)) != NULL)
		if (strncmp(entry->d_name, start, length) == 0)
			staged_remove(dirfd(stream), entry->d_name, failure);
	if (stream != NULL)
		closedir(stream);
}

int job_clean(unsigned job, struct failure *failure)
{
	struct failure ignored = {.notice = NULL};

	/* The epilog starts this in slurmd's cgroup: no other process of the user shall put its own work
	 * there. */
	prctl(PR_SET_DUMPABLE, 0);
	helpers_end(job, failure);
	staged_clean(job, failure);
	for (int i = 0; i < PLACES; i++) {
		const int directory = place_open(i, 0, &ignored);

		if (directory >= 0)
			place_clean(directory, job, failure);
	}
	return 0;
}
