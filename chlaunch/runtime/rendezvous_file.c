/*
 * The rendezvous file: its place, its lock, its wait.
 *
 * The place is a directory of our own, mode 0700, in a directory that everybody may write to: so what is
 * found there is believed only if it is a directory, no link, ours, and closed to others. Inside it nobody
 * else can plant anything. The kernel gives the lock back when its holder dies, whatever it died of.
 */
#include "rendezvous_file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"

enum {
	WARN_SECONDS = 10,
	WAIT_SECONDS = 120,
};

static void place_path(int number, char *path, size_t size)
{
	static const char *const formats[PLACES] = {
		"/dev/shm/chlaunch-%u",
		"/run/user/%u/chlaunch", /* $XDG_RUNTIME_DIR by its usual name: the same for every rank */
		"/tmp/chlaunch-%u",
	};

	snprintf(path, size, formats[number], geteuid());
}

int place_open(int number, int make, struct failure *failure)
{
	char path[64];
	struct stat status;
	int fd, made = 0;

	place_path(number, path, sizeof path);
	if (make) {
		const mode_t mask = umask(077); /* one that closes it to us would close it to all that come */

		made = mkdir(path, 0700);
		umask(mask);
	}
	if (made < 0 && errno != EEXIST)
		return FAIL(failure, FAILURE_JOIN_PLACE, errno, "%s", path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &status) < 0) {
		const int error = errno;

		if (lstat(path, &status) == 0)
			return FAIL(failure, FAILURE_JOIN_PLACE, error, "%s: a file or link of user %u", path,
				    status.st_uid);
		return FAIL(failure, FAILURE_JOIN_PLACE, error, "%s", path);
	}
	if (status.st_uid == geteuid() && (status.st_mode & 077) == 0)
		return fd;
	close(fd);
	return FAIL(failure, FAILURE_JOIN_PLACE, 0, "%s: of user %u, mode %04o", path, status.st_uid,
		    status.st_mode & 07777);
}

/* Does the directory still call this very file by that name? It may have been cleared away while we waited.
 */
static bool file_is_named(int directory, const char *name, int fd)
{
	struct stat by_name, by_fd;

	return fstat(fd, &by_fd) == 0 && fstatat(directory, name, &by_name, AT_SYMLINK_NOFOLLOW) == 0 &&
	       by_fd.st_ino == by_name.st_ino && by_fd.st_dev == by_name.st_dev;
}

int file_lock_idle(int directory, const char *name)
{
	const int fd = openat(directory, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && file_is_named(directory, name, fd))
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

/* The process that proc_locks(5) says holds the flock on fd; 0 where it doesn't say. */
static int lock_holder(int fd)
{
	FILE *file = fopen("/proc/locks", "re");
	char line[256];
	unsigned long inode;
	struct stat status;
	int pid, holder = 0;

	while (file != NULL && fstat(fd, &status) == 0 && fgets(line, sizeof line, file) != NULL)
		if (sscanf(line, "%*d: FLOCK %*s %*s %d %*x:%*x:%lu", &pid, &inode) == 2 &&
		    inode == status.st_ino)
			holder = pid;
	if (file != NULL)
		fclose(file);
	return holder;
}

static void timer_rang(int signal)
{
	(void)signal; /* its work is to interrupt flock(2) */
}

/* Wait for the lock: a word every 10 s, an end after 120 s. */
static int lock_wait_timed(int fd, const char *name, struct failure *failure)
{
	for (int waited = 0; waited < WAIT_SECONDS; waited += WARN_SECONDS) {
		if (flock(fd, LOCK_EX) == 0)
			return 0;
		if (errno != EINTR)
			return FAIL(failure, FAILURE_JOIN_FILE, errno, "%s", name);
		notice(failure, NOTICE_WARNING, "join: waiting for %s, held by process %d", name,
		       lock_holder(fd));
	}
	return FAIL(failure, FAILURE_JOIN_LOCK, 0, "%s, held by process %d", name, lock_holder(fd));
}

/*
 * The timer is a POSIX one and its signal's disposition is put back: neither may reach the command, which
 * inherits ignored signals and interval timers.
 */
static int lock_wait(int fd, const char *name, struct failure *failure)
{
	const struct itimerspec period = {{WARN_SECONDS, 0}, {WARN_SECONDS, 0}};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
	struct sigaction action = {.sa_handler = timer_rang}, old_action;
	sigset_t alarm, old_mask;
	timer_t timer;
	int result;

	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	if (timer_create(CLOCK_MONOTONIC, &event, &timer) < 0)
		return FAIL(failure, FAILURE_SYSTEM, errno, "timer");
	sigaction(SIGALRM, &action, &old_action);
	sigprocmask(SIG_UNBLOCK, &alarm, &old_mask);
	timer_settime(timer, 0, &period, NULL);
	result = lock_wait_timed(fd, name, failure);
	timer_delete(timer);
	sigprocmask(SIG_SETMASK, &old_mask, NULL);
	sigaction(SIGALRM, &old_action, NULL);
	return result;
}

/* A regular file of ours by that name; what else may stand there is passed over. */
static int file_open(int directory, const char *name, int flags, struct failure *failure)
{
	struct stat status;
	const mode_t mask = umask(077);
	const int fd = openat(directory, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | flags, 0600);

	umask(mask);
	if (fd < 0)
		return FAIL(failure, FAILURE_JOIN_FILE, errno, "%s", name);
	if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_uid == geteuid())
		return fd;
	close(fd);
	return FAIL(failure, FAILURE_JOIN_FILE, 0, "%s: not a file of yours", name);
}

/* The file at the first of our places that has it (flags 0) or takes it (O_CREAT). */
static int file_find(const char *name, int flags, int *directory, struct failure *failure)
{
	for (int i = 0; i < PLACES; i++) {
		const int place = place_open(i, flags, failure);
		const int fd = place < 0 ? -1 : file_open(place, name, flags, failure);

		if (fd >= 0) {
			*directory = place;
			return fd;
		}
		if (place >= 0)
			close(place);
	}
	return -1;
}

int file_lock(const char *name, int *directory, int *lock, struct failure *failure)
{
	for (;;) {
		/* Look everywhere before making one: an earlier rank may not have had the first place. */
		*lock = file_find(name, 0, directory, failure);
		if (*lock < 0 && (*lock = file_find(name, O_CREAT, directory, failure)) < 0)
			return -1;
		if (lock_wait(*lock, name, failure) < 0)
			return -1;
		if (file_is_named(*directory, name, *lock))
			return 0;
		close(*lock);
		close(*directory);
	}
}

int file_elsewhere(const char *name, int make, int *place)
{
	struct failure ignored = {.notice = NULL};

	for (; *place < PLACES; ++*place) {
		CLEANUP_FD int directory = place_open(*place, make, &ignored);
		const int fd = directory < 0 ? -1 : file_open(directory, name, make ? O_CREAT : 0, &ignored);

		if (fd >= 0)
			return fd;
	}
	return -1;
}
