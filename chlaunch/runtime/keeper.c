/*
 * The keeper of a FUSE image.
 *
 * There is no parent of the ranks that could serve their image, so a process of its own does, started by the
 * first of them. It stays in the host's mount namespace, and once its maker has ended nothing of it holds on
 * to the container. When the last process of the container has gone, whichever that is, the kernel takes the
 * mount away, the server ends, and the keeper with it. If the server ends before, the ranks can't go on: the
 * keeper says so, once, and ends them.
 *
 * It holds none of the ranks' descriptors: one that held their standard output would keep srun and mpirun
 * waiting.
 */
#include "keeper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "kernel.h"

enum {
	FIRST_OWN = 3, /* descriptors below are standard input, output and error */
	CPUS_MOST = 8192,
};

/* What of the process that starts it goes into the keeper. */
struct inheritance {
	int image, device, go, complaint, directory, mount, maker;
};

enum { INHERITED = sizeof(struct inheritance) / sizeof(int) };

/* Before Linux 5.9: those there are. The limit on their number may be a billion, or lower than what is open.
 */
static void descriptors_close_listed(int from)
{
	DIR *stream = opendir("/proc/self/fd");
	const struct dirent *entry;

	while (stream != NULL && (entry = readdir(stream)) != NULL) {
		const int fd = atoi(entry->d_name);

		if (fd >= from && fd != dirfd(stream))
			close(fd);
	}
	if (stream != NULL)
		closedir(stream);
}

static void descriptors_close_from(int from)
{
	if (syscall(KERNEL_CLOSE_RANGE, (unsigned)from, UINT_MAX, 0) < 0)
		descriptors_close_listed(from);
}

/* Move what is needed to FIRST_OWN and up, in order, and close all else. */
static int descriptors_arrange(struct inheritance *inheritance)
{
	int *fds = (int *)inheritance;
	int high[INHERITED];

	for (int i = 0; i < INHERITED; i++) {
		high[i] = fds[i] < 0 ? -1 : fcntl(fds[i], F_DUPFD_CLOEXEC, FIRST_OWN + INHERITED);
		if (fds[i] >= 0 && high[i] < 0)
			return -1;
	}
	for (int i = 0; i < INHERITED; i++) {
		fds[i] = FIRST_OWN + i;
		if (high[i] < 0)
			close(fds[i]);
		else if (dup3(high[i], fds[i], O_CLOEXEC) < 0)
			return -1;
	}
	descriptors_close_from(FIRST_OWN + INHERITED);
	close(0);
	return open("/dev/null", O_RDWR) == 0 && dup2(0, 1) == 1 && dup2(0, 2) == 2 ? 0 : -1;
}

/* The first rank may be bound to one core; the server works for all. The kernel leaves out what is forbidden.
 */
static void affinity_reset(void)
{
	const size_t size = CPU_ALLOC_SIZE(CPUS_MOST);
	cpu_set_t *all = CPU_ALLOC(CPUS_MOST);

	if (all == NULL)
		return;
	memset(all, 0xff, size);
	sched_setaffinity(0, size, all);
	CPU_FREE(all);
}

/* Terminal and scheduler signals are for the ranks: the server leaves when they have. */
static void signals_set(void)
{
	static const int ignored[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE};
	sigset_t none;

	for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
		signal(ignored[i], SIG_IGN);
	signal(SIGCHLD, SIG_DFL); /* else the server could not be waited for */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/*
 * Nothing that is meant for the ranks, LD_PRELOAD above all. A buffer is allocated for every block that is
 * decompressed: glibc is told to keep the memory (mallopt(3)), or each would be mapped and cleared anew.
 */
static void environment_make(const char **variables)
{
	static const char *const memory[] = {"MALLOC_MMAP_THRESHOLD_=33554432",
					     "MALLOC_TRIM_THRESHOLD_=33554432", "MALLOC_TOP_PAD_=1048576"};
	static char library_path[PATH_MAX + 16], of_job[32];
	const char *given = getenv("LD_LIBRARY_PATH"); /* of a squashfuse from a module */
	const char *job = getenv("SLURM_JOB_ID");
	size_t count = 0;

	for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
		variables[count++] = memory[i];
	if (given != NULL && strlen(given) < PATH_MAX) {
		snprintf(library_path, sizeof library_path, "LD_LIBRARY_PATH=%s", given);
		variables[count++] = library_path;
	}
	if (job != NULL && snprintf(of_job, sizeof of_job, "CHLAUNCH_JOB=%s", job) < (int)sizeof of_job)
		variables[count++] = of_job; /* by which clean.c knows it */
	variables[count] = NULL;
}

/* The server's words: "-f -o OPTIONS /proc/self/fd/IMAGE /dev/fd/DEVICE". A small /dev lacks the link
 * /dev/fd, which libfuse does without. */
static void server_run(const struct keeper_work *work, const struct inheritance *inheritance)
{
	const struct image_server *server = work->file->server;
	char image[32], device[32], offset[48], options[128];
	const char *words[9] = {server->program, "-f"};
	const char *environment[6];
	size_t count = 2;

	environment_make(environment);
	snprintf(image, sizeof image, "/proc/self/fd/%d", inheritance->image);
	snprintf(device, sizeof device, "/dev/fd/%d", inheritance->device);
	snprintf(offset, sizeof offset, server->offset, (uintmax_t)work->file->offset);
	snprintf(options, sizeof options, "fsname=chlaunch");
	if (work->set_owner)
		snprintf(options, sizeof options, "uid=%u,gid=%u", work->uid, work->gid);
	if (work->single && server->single != NULL)
		words[count++] = server->single;
	if (work->file->offset > 0 && offset[0] == '-')
		words[count++] = offset;
	else if (work->file->offset > 0)
		snprintf(options + strlen(options), sizeof options - strlen(options), ",%s", offset);
	words[count++] = "-o";
	words[count++] = options;
	words[count++] = image;
	words[count++] = device;
	dup2(inheritance->complaint, STDERR_FILENO);
	fcntl(inheritance->image, F_SETFD, 0);
	fcntl(inheritance->device, F_SETFD, 0);
	execve(work->program, (char **)words, (char **)environment);
	dprintf(STDERR_FILENO, "%s: %s\n", work->program, strerror(errno));
	_exit(EXIT_EXEC);
}

/* "was killed by signal 9" */
static void status_word(int status, char *text, size_t size)
{
	if (WIFSIGNALED(status))
		snprintf(text, size, "was killed by signal %d", WTERMSIG(status));
	else
		snprintf(text, size, "ended with status %d", WEXITSTATUS(status));
}

/*
 * Whoever lets go of the mount last takes the file system apart, and its parent waits for that: the end of a
 * command that does so is 0.5 ms later (measured; two RCU grace periods). So the keeper holds the mount until
 * its maker has ended, or the server. Other processes of the container hold it themselves.
 */
static void mount_hold(const struct inheritance *inheritance, pid_t server)
{
	struct pollfd ends[] = {{.fd = (int)syscall(KERNEL_PIDFD_OPEN, server, 0), .events = POLLIN},
				{.fd = inheritance->maker, .events = POLLIN}};

	if (ends[0].fd >= 0) /* Linux 5.3; descriptors that are not open end the wait at once */
		poll(ends, sizeof ends / sizeof *ends, -1);
	close(inheritance->mount);
}

static void keeper_run(const struct keeper_work *work, struct inheritance inheritance,
		       struct rendezvous_members members)
{
	struct failure why = {.notice = NULL};
	char byte, how[64];
	pid_t server;
	int status;

	prctl(PR_SET_NAME, "ch-run-keeper");
	if (descriptors_arrange(&inheritance) < 0 || chdir("/") < 0)
		return;
	signals_set();
	affinity_reset();
	members.directory = inheritance.directory;
	if (read(inheritance.go, &byte, 1) != 1) /* the rank failed, or died */
		return;
	server = vfork(); /* server_run makes nothing of ours other than it is */
	if (server == 0)
		server_run(work, &inheritance);
	/* The kernel sees that the server is gone only if nobody else has the device open. */
	close(inheritance.device);
	close(inheritance.image);
	close(inheritance.complaint);
	close(inheritance.go);
	if (server > 0)
		mount_hold(&inheritance, server);
	if (server < 0 || waitpid(server, &status, 0) != server)
		return;
	status_word(status, how, sizeof how);
	FAIL(&why, FAILURE_SERVER_DIED, 0, "%s: %s %s", work->shown, work->file->server->program, how);
	rendezvous_members_end(&members, &why);
}

int keeper_program(const struct image_server *server, char *path, size_t size, const char *shown,
		   struct failure *failure)
{
	const char *search = getenv("PATH");
	const char *const places[] = {search == NULL ? "" : search, "/usr/local/bin:/usr/bin:/bin"};

	for (size_t i = 0; i < sizeof places / sizeof *places; i++)
		for (const char *item = places[i]; *item != '\0'; item += *item == ':') {
			const size_t length = strcspn(item, ":");

			snprintf(path, size, "%.*s/%s", (int)length, item, server->program);
			if (path[0] == '/' && access(path, X_OK) == 0)
				return 0;
			item += length;
		}
	return FAIL(failure, FAILURE_SERVER_MISSING, 0, "%s needs %s, of package %s", shown, server->program,
		    server->package);
}

bool keeper_sets_owner(const struct image_server *server, const char *path)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat status;
	bool found = false;
	void *text;

	if (server->owner[0] == '\0')
		return true;
	if (fd < 0 || fstat(fd, &status) < 0 || status.st_size == 0)
		return false;
	text = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (text == MAP_FAILED)
		return false;
	found = memmem(text, (size_t)status.st_size, server->owner, strlen(server->owner)) != NULL;
	munmap(text, (size_t)status.st_size);
	return found;
}

/* A socket is a pipe that can be written to without SIGPIPE. */
static int pipe_make(int ends[2], struct failure *failure)
{
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0
		       ? 0
		       : FAIL(failure, FAILURE_SYSTEM, errno, "socketpair");
}

/* Twice forked, so that it is nobody's child: the command must not find a child that it never made. */
static pid_t keeper_fork(const struct keeper_work *work, const struct inheritance *inheritance,
			 const struct rendezvous_members *members, struct failure *failure)
{
	const pid_t child = fork();

	if (child < 0)
		return FAIL(failure, FAILURE_SYSTEM, errno, "fork");
	if (child == 0) {
		const pid_t keeper = setsid() < 0 ? -1 : fork();

		if (keeper == 0)
			keeper_run(work, *inheritance, *members);
		_exit(EXIT_SUCCESS); /* a keeper that is missing is noticed as a server that is */
	}
	return child;
}

int keeper_start(struct keeper *keeper, const struct keeper_work *work, struct failure *failure)
{
	CLEANUP_FD int maker = (int)syscall(KERNEL_PIDFD_OPEN, getpid(), 0);
	struct rendezvous_members members;
	int go[2], complaint[2];

	if (pipe_make(go, failure) < 0 || pipe_make(complaint, failure) < 0)
		return -1;
	members = rendezvous_members(work->rendezvous);
	keeper->child = keeper_fork(work,
				    &(struct inheritance){.image = work->image,
							  .device = work->device,
							  .go = go[0],
							  .complaint = complaint[1],
							  .directory = members.directory,
							  .mount = work->mount,
							  .maker = maker},
				    &members, failure);
	close(go[0]);
	close(complaint[1]);
	keeper->go = go[1];
	keeper->complaint = complaint[0];
	return keeper->child < 0 ? -1 : 0;
}

void keeper_reap(const struct keeper *keeper)
{
	/* It has long ended. It may be gone too, where SIGCHLD is ignored. */
	if (keeper->child > 0)
		waitpid(keeper->child, NULL, 0);
}

void keeper_go(const struct keeper *keeper)
{
	/* If the keeper has died the mount is dead too, which the first look at it tells. */
	if (send(keeper->go, "", 1, MSG_NOSIGNAL) < 0)
		return;
}

void keeper_complaint(const struct keeper *keeper, char *text, size_t size)
{
	/* What it said it said before it closed the device. One that still lives may have nothing to say. */
	const ssize_t length = recv(keeper->complaint, text, size - 1, MSG_DONTWAIT);

	text[length < 0 ? 0 : length] = '\0';
	text[strcspn(text, "\n")] = '\0';
}
