/*
 * Ranks of a node meet, and the late ones enter the namespaces of the early ones.
 *
 * Under the lock, a rank reads who was here before. It enters the namespaces of any member that still lives;
 * if none does, it makes them. Then it adds itself and lets go. Nobody counts, nobody waits for others to
 * arrive.
 */
#include "rendezvous.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "namespaces.h"
#include "rendezvous_file.h"
#include "rendezvous_name.h"
#include "rendezvous_records.h"

enum {
	SWEEP_MOST = 8,	   /* dead tags looked at by one creator */
	SWEEP_NAMES = 256, /* names read for them */
};

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
		if (member_enter(user_fd, mount_fd, same) < 0)
			continue;
		if (same)
			rendezvous->self.instance = member->instance;
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
		     struct trace *trace, struct failure *failure)
{
	memset(rendezvous, 0, sizeof *rendezvous);
	rendezvous->self.container = rendezvous_container(container);
	rendezvous->self.pid = getpid();
	rendezvous->self.start = process_start(rendezvous->self.pid);
	rendezvous->self.instance = rendezvous->self.start << 32 | (uint32_t)rendezvous->self.pid;
	if (rendezvous_name(container, rendezvous->name, sizeof rendezvous->name, failure) < 0 ||
	    file_lock(rendezvous->name, &rendezvous->directory, &rendezvous->lock, failure) < 0)
		return -1;
	trace_note(trace, TRACE_WAITED);
	if (records_find(rendezvous, failure) < 0 ||
	    meeting_find(rendezvous, container, meeting, failure) < 0)
		return -1;
	if (*meeting != MEETING_NOBODY)
		return 0;
	tags_sweep(rendezvous); /* now: from inside a namespace we could not look at others' members */
	rendezvous->header = records_header(container);
	return records_reserve(rendezvous, failure);
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
