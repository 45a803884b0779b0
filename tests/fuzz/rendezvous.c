/*
 * The rendezvous file. Whatever it says, we enter and kill only who is named in it by PID, start time,
 * namespaces and container. The harness has a child that lives; where a record says 1, it is made to say what
 * is true of the child.
 *
 * The first byte says how things are, the rest is the file.
 */
#include "rendezvous.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"
#include "kernel.h"
#include "namespaces.h"
#include "rendezvous_file.h"
#include "rendezvous_name.h"
#include "rendezvous_records.h"

enum { ELSEWHERE = 1, NEIGHBOUR = 2, USER_REFUSES = 4, MOUNT_REFUSES = 8, OTHER_IDS = 16 };
enum { MEMBERS_MOST = 400, COUNT_MOST = 65536, IDS = 1000, DEAD = 0x7ffffffe };

static const uint64_t FORMAT = 0x3268636e75616c68;

int __wrap_file_lock(const char *name, int *directory, int *lock, struct failure *failure);
int __wrap_file_elsewhere(const char *name, int make, int *place);
int __wrap_setns(int fd, int type);
int __wrap_kill(pid_t pid, int number);
long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
int __wrap_usleep(useconds_t microseconds);

static char directory_path[] = "/dev/shm/fuzz-XXXXXX";
static int directory = -1;
static struct container container = {
	.image = "/image", .join_tag = "fuzz", .uid = IDS, .gid = IDS, .join = true};
static struct rendezvous_member child; /* as a true record of it would be */
static uint64_t child_user_namespace;

static struct {
	struct rendezvous_header header;
	struct rendezvous_member members[MEMBERS_MOST];
} content;
static size_t content_size;
static uint8_t mode;
static int signalled; /* PID of the last pidfd */

/* Does the file name the child? */
static bool child_is_named(bool same, bool same_instance)
{
	const size_t whole = content_size < sizeof content.header
				     ? 0
				     : (content_size - sizeof content.header) / sizeof *content.members;

	if (content_size < sizeof content.header || content.header.format != FORMAT ||
	    content.header.member_count > COUNT_MOST || content.header.member_count > whole)
		return false;
	for (size_t i = 0; i < content.header.member_count; i++) {
		const struct rendezvous_member *member = &content.members[i];

		if (member->pid == child.pid && member->start == child.start &&
		    (!same || member->container == child.container) &&
		    (!same_instance || member->instance == child.instance) &&
		    (same_instance || (member->mount_namespace == child.mount_namespace &&
				       content.header.user_namespace == child_user_namespace)))
			return true;
	}
	return false;
}

static int file_open(const char *name, int flags)
{
	const int fd = openat(directory, name, O_RDWR | O_CLOEXEC | flags, 0600);

	CHECK(fd >= 0);
	return fd;
}

int __wrap_file_lock(const char *name, int *place, int *lock, struct failure *failure)
{
	(void)failure;
	*lock = file_open(name, 0);
	*place = fcntl(directory, F_DUPFD_CLOEXEC, 0);
	CHECK(*place >= 0 && flock(*lock, LOCK_EX | LOCK_NB) == 0);
	return 0;
}

int __wrap_file_elsewhere(const char *name, int make, int *place)
{
	(void)name;
	(void)place;
	return mode & ELSEWHERE && !make ? file_open("elsewhere", 0) : -1;
}

int __wrap_setns(int fd, int type)
{
	struct stat status;

	CHECK(!(mode & OTHER_IDS) && content.header.uid == IDS && content.header.gid == IDS);
	CHECK(child_is_named(type == CLONE_NEWNS, false));
	CHECK(fstat(fd, &status) == 0);
	CHECK(status.st_ino == (type == CLONE_NEWNS ? child.mount_namespace : child_user_namespace));
	errno = EPERM;
	return mode & (type == CLONE_NEWNS ? MOUNT_REFUSES : USER_REFUSES) ? -1 : 0;
}

int __wrap_kill(pid_t pid, int number)
{
	CHECK(pid == child.pid && number == SIGKILL && child_is_named(false, true));
	return 0;
}

long __wrap_syscall(long number, ...)
{
	va_list list;
	long words[4];

	va_start(list, number);
	for (size_t i = 0; i < 4; i++)
		words[i] = va_arg(list, long);
	va_end(list);
	if (number == KERNEL_PIDFD_OPEN)
		signalled = (int)words[0];
	if (number == KERNEL_PIDFD_SEND_SIGNAL)
		return __wrap_kill(signalled, (int)words[1]);
	return __real_syscall(number, words[0], words[1], words[2], words[3]);
}

int __wrap_usleep(useconds_t microseconds)
{
	(void)microseconds;
	return 0;
}

static void directory_remove(void)
{
	for (size_t i = 0; i < 2; i++)
		unlinkat(directory, (const char *[]){"elsewhere", "neighbour"}[i], 0);
	rmdir(directory_path);
}

static void child_start(void)
{
	const int parent = getpid();

	/* A start is told in hundredths of a second: the child's must not be ours. */
	nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	child.pid = fork();
	CHECK(child.pid >= 0);
	if (child.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() == parent && freopen("/dev/null", "w", stderr) != NULL)
			execlp("sleep", "sleep", "infinity", NULL);
		_exit(0);
	}
	child.start = process_start(child.pid);
	child.container = rendezvous_container(&container);
	child.mount_namespace = namespace_own("mnt");
	child.instance = child.start << 32 | (uint32_t)child.pid;
	child_user_namespace = namespace_own("user");
}

static void prepare(void)
{
	if (directory >= 0)
		return;
	CHECK(mkdtemp(directory_path) != NULL);
	directory = open(directory_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(directory >= 0);
	atexit(directory_remove);
	child_start();
}

static void content_make(const struct input *input)
{
	memset(&content, 0, sizeof content);
	content_size = input->size < sizeof content ? input->size : sizeof content;
	memcpy(&content, input->data, content_size);
	if (content.header.user_namespace == 1)
		content.header.user_namespace = child_user_namespace;
	for (size_t i = 0; i < MEMBERS_MOST; i++) {
		struct rendezvous_member *member = &content.members[i];

		member->mount_namespace =
			member->mount_namespace == 1 ? child.mount_namespace : member->mount_namespace;
		member->container = member->container == 1 ? child.container : member->container;
		member->start = member->start == 1 ? child.start : member->start;
		member->pid = member->pid == 1 ? child.pid : member->pid;
		member->instance = member->instance == 1 ? child.instance : member->instance;
	}
}

static void content_write(const char *name)
{
	const int fd = file_open(name, O_CREAT | O_TRUNC);

	CHECK(write(fd, &content, content_size) == (ssize_t)content_size);
	close(fd);
}

/* After we left, the file is whole, and has us in it. */
static void records_check(const struct rendezvous *rendezvous, enum meeting meeting)
{
	struct rendezvous copy = {.data = file_open(mode & ELSEWHERE ? "elsewhere" : rendezvous->name, 0)};
	struct failure failure = {.notice = NULL};
	bool found = false;

	CHECK(records_read(&copy, &failure) == 0 && copy.header.member_count > 0);
	CHECK(copy.header.uid == container.uid &&
	      (meeting != MEETING_NOBODY || copy.header.member_count == 1));
	for (size_t i = 0; i < copy.header.member_count; i++)
		found |= copy.members[i].pid == getpid() && copy.members[i].start == rendezvous->self.start;
	CHECK(found || meeting != MEETING_NOBODY);
	close(copy.data);
}

static void meet(struct rendezvous *rendezvous)
{
	struct failure failure = {.notice = NULL};
	struct trace trace = {.target = NULL};
	enum meeting meeting = MEETING_NOBODY;
	char neighbour[256];

	snprintf(neighbour, sizeof neighbour, "neighbour%s", strrchr(rendezvous->name, '.'));
	if (mode & NEIGHBOUR)
		content_write(neighbour);
	if (rendezvous_enter(rendezvous, &container, &meeting, &trace, &failure) < 0) {
		if (rendezvous->data != rendezvous->lock)
			close(rendezvous->data);
		close(rendezvous->lock);
		close(rendezvous->directory);
	} else {
		CHECK(rendezvous_leave(rendezvous, meeting, &failure) == 0);
		if (content_size < sizeof content)
			records_check(rendezvous, meeting);
	}
	if (mode & NEIGHBOUR)
		CHECK(unlinkat(directory, neighbour, 0) == 0 || !child_is_named(false, false));
}

static void end(const struct rendezvous *rendezvous)
{
	struct rendezvous_members members = {.directory = directory, .self = child};
	struct failure why = {.notice = NULL};

	FAIL(&why, FAILURE_SERVER_DIED, 0, "image");
	memcpy(members.name, rendezvous->name, sizeof members.name);
	members.self.pid = DEAD;
	rendezvous_members_end(&members, &why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};
	struct rendezvous rendezvous;
	struct failure failure = {.notice = NULL};

	prepare();
	memory_watch();
	mode = input_byte(&input);
	container.uid = container.gid = mode & OTHER_IDS ? IDS + 1 : IDS;
	content_make(&input);
	CHECK(rendezvous_name(&container, rendezvous.name, sizeof rendezvous.name, &failure) == 0);
	content_write(mode & ELSEWHERE ? "elsewhere" : rendezvous.name);
	if (mode & ELSEWHERE)
		close(file_open(rendezvous.name, O_CREAT | O_TRUNC));
	end(&rendezvous);
	meet(&rendezvous);
	unlinkat(directory, rendezvous.name, 0);
	memory_release();
	return 0;
}
