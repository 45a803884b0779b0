#include "planner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <slurm/spank.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "cleanup.h"

enum {
	ANSWER_FD = 3,	       /* as in cli/srun.py */
	EXIT_FAILURE_31 = 31,  /* chlaunch/errors.py */
	ANSWER_MAX = 16 << 20, /* far above what execve(2) takes */
	POLL_MILLISECONDS = 1,
	SIGNAL_MILLISECONDS = 5,
};

/* The codes whose reason the planner has said itself: those of chlaunch/errors.py, and of a shell's SIGINT.
 */
static const int worded[] = {2, 31, 49, 64, 87, 130};

/* What would make the planner's Python and its libraries other ones than those that the admin has named. */
static const char *const dropped[] = {"LD_", "PYTHON"};

static bool is_dropped(const char *variable)
{
	for (size_t i = 0; i < sizeof dropped / sizeof *dropped; i++)
		if (strncmp(variable, dropped[i], strlen(dropped[i])) == 0)
			return true;
	return false;
}

static const int ending[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};

enum { ENDINGS = sizeof ending / sizeof *ending };

/*
 * Let such a signal end srun, which has asked for nothing yet. Before 26.05 srun blocks them: they wait for
 * the srun to come. Since then it catches them, and what its threads note that one would never hear of. A
 * thread begins to, at a time of its own: so this is called again and again.
 */
static void endings_allow(struct endings *endings)
{
	const struct sigaction end = {.sa_handler = SIG_DFL};
	struct sigaction now;

	for (int i = 0; i < ENDINGS; i++) {
		if (sigaction(ending[i], NULL, &now) < 0 || now.sa_handler == SIG_DFL ||
		    now.sa_handler == SIG_IGN)
			continue;
		endings->caught[i] = now;
		sigaction(ending[i], &end, NULL);
	}
}

void endings_restore(const struct endings *endings)
{
	for (int i = 0; i < ENDINGS; i++)
		if (endings->caught[i].sa_handler != SIG_DFL)
			sigaction(ending[i], &endings->caught[i], NULL);
}

static char **environment_make(char *const environment[])
{
	size_t count = 0, kept = 0;
	char **copy;

	while (environment[count] != NULL)
		count++;
	copy = calloc(count + 1, sizeof *copy);
	for (size_t i = 0; copy != NULL && i < count; i++)
		if (!is_dropped(environment[i]))
			copy[kept++] = environment[i];
	return copy;
}

static char **words_make(const struct planner *planner, const char *srun, char *const words[],
			 char *command_at)
{
	const char *const head[] = {planner->path, "-I", "-m", "chlaunch.cli.srun", srun, command_at};
	const size_t heads = sizeof head / sizeof *head;
	size_t count = 0;
	char **all;

	while (words[count] != NULL)
		count++;
	all = calloc(heads + count + 1, sizeof *all);
	if (all == NULL)
		return NULL;
	memcpy(all, head, sizeof head);
	if (count > 0) /* but srun's own name */
		memcpy(all + heads, words + 1, (count - 1) * sizeof *all);
	return all;
}

static int planner_start(const char *path, char *const argv[], char *const environment[], int answer_fd,
			 pid_t *pid)
{
	posix_spawn_file_actions_t actions;
	int error = ENOMEM;

	if (posix_spawn_file_actions_init(&actions) != 0)
		return ENOMEM;
	/* the user's standard input is the tasks' */
	if (posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0) == 0 &&
	    posix_spawn_file_actions_adddup2(&actions, answer_fd, ANSWER_FD) == 0)
		error = posix_spawn(pid, path, &actions, NULL, argv, environment);
	posix_spawn_file_actions_destroy(&actions);
	return error;
}

static long milliseconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* A planner that fetches an image says so by empty words in front of its answer, again and again. */
static void answer_trim(struct answer *answer)
{
	size_t empty = 0;

	while (empty < answer->length && answer->text[empty] == '\0')
		empty++;
	answer->length -= empty;
	memmove(answer->text, answer->text + empty, answer->length);
}

/* Read to the end; ETIMEDOUT if for so many milliseconds nothing comes. */
static int answer_read(int fd, long patience, struct endings *endings, struct answer *answer)
{
	long deadline = milliseconds_now() + patience;
	size_t room = 0;

	for (;;) {
		struct pollfd readable = {.fd = fd, .events = POLLIN};
		const long left = deadline - milliseconds_now();
		ssize_t got;

		endings_allow(endings);
		if (left <= 0)
			return ETIMEDOUT;
		got = poll(&readable, 1, left < SIGNAL_MILLISECONDS ? (int)left : SIGNAL_MILLISECONDS);
		if (got == 0 || (got < 0 && errno == EINTR))
			continue;
		if (room - answer->length < BUFSIZ) {
			char *more = realloc(answer->text, room += room + 2 * BUFSIZ);

			if (more == NULL)
				return ENOMEM;
			answer->text = more;
			if (room > ANSWER_MAX)
				return EFBIG;
		}
		got = read(fd, answer->text + answer->length, room - answer->length);
		if (got < 0 && errno != EINTR)
			return errno;
		if (got == 0)
			return 0;
		if (got > 0) {
			answer->length += (size_t)got;
			answer_trim(answer);
			deadline = milliseconds_now() + patience;
		}
	}
}

/* Wait for the planner, and end it where it is late: it is our child, so its PID can't be another's. */
static int planner_wait(pid_t pid, long deadline, struct endings *endings, int *status)
{
	const struct timespec pause = {.tv_nsec = POLL_MILLISECONDS * 1000000L};
	pid_t ended;

	while ((ended = waitpid(pid, status, WNOHANG)) == 0 && milliseconds_now() < deadline) {
		endings_allow(endings);
		nanosleep(&pause, NULL);
	}
	if (ended == pid)
		return 0;
	if (ended < 0) { /* where SIGCHLD is ignored, only the answer tells how it went */
		*status = 0;
		return errno == ECHILD ? 0 : errno;
	}
	kill(pid, SIGKILL);
	while (waitpid(pid, status, 0) < 0 && errno == EINTR)
		;
	return ETIMEDOUT;
}

/* The exit code for srun, 0 to go on; says why it can't, unless the planner has. */
static int outcome(const struct planner *planner, int error, int status)
{
	if (error == ETIMEDOUT) {
		slurm_error("chlaunch: %s did not answer within %ld s; is its file system slow?",
			    planner->path, planner->seconds);
		return EXIT_FAILURE_31;
	}
	if (error != 0) {
		slurm_error("chlaunch: can't read what %s says: %s", planner->path, strerror(error));
		return EXIT_FAILURE_31;
	}
	if (WIFSIGNALED(status)) {
		slurm_error("chlaunch: %s was ended by signal %d", planner->path, WTERMSIG(status));
		return EXIT_FAILURE_31;
	}
	for (size_t i = 0; i < sizeof worded / sizeof *worded; i++)
		if (WEXITSTATUS(status) == worded[i])
			return worded[i];
	if (WEXITSTATUS(status) == 0)
		return 0;
	slurm_error("chlaunch: %s failed with exit code %d; is chlaunch installed for it?", planner->path,
		    WEXITSTATUS(status));
	return EXIT_FAILURE_31;
}

int planner_ask(const struct planner *planner, const char *srun, char *const words[], int command_at,
		char *const environment[], struct endings *endings, struct answer *answer)
{
	const long patience = planner->seconds * 1000;
	char place[16];
	CLEANUP_FREE char **argv = NULL, **kept = environment_make(environment);
	CLEANUP_FD int from = -1;
	int ends[2], error, late, status = 0;
	pid_t pid;

	endings_allow(endings);
	snprintf(place, sizeof place, "%d", command_at);
	argv = words_make(planner, srun, words, place);
	error = argv == NULL || kept == NULL ? ENOMEM : pipe2(ends, O_CLOEXEC) < 0 ? errno : 0;
	if (error == 0) {
		from = ends[0];
		error = planner_start(planner->path, argv, kept, ends[1], &pid);
		close(ends[1]);
	}
	if (error != 0) {
		slurm_error("chlaunch: can't start the planner %s: %s%s", planner->path, strerror(error),
			    error == ENOENT ? "; it is named in plugstack.conf" : "");
		return EXIT_FAILURE_31;
	}
	error = answer_read(from, patience, endings, answer);
	late = planner_wait(pid, error == 0 ? milliseconds_now() + patience : 0, endings, &status);
	return outcome(planner, error != 0 ? error : late, status);
}
