/* The one way into a container. */
#include "container.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "cleanup.h"
#include "environment.h"
#include "execute.h"
#include "mounts.h"
#include "namespaces.h"
#include "rendezvous.h"
#include "seccomp.h"

/* What a node's ranks share is made by the first of them here, and entered by the others. */
static int namespaces_enter(const struct container *container, bool *first, struct failure *failure)
{
	struct rendezvous rendezvous;
	enum meeting meeting = MEETING_NOBODY;

	if (container->join_pid != 0)
		return namespaces_join_process(container->join_pid, failure);
	if (container->join && rendezvous_enter(&rendezvous, container, &meeting, failure) < 0)
		return -1;
	*first = meeting != MEETING_CONTAINER;
	if (meeting == MEETING_NOBODY && namespace_user_make(container->uid, container->gid, failure) < 0)
		return -1;
	if (*first && (namespace_mount_make(failure) < 0 || mounts_build(container, failure) < 0))
		return -1;
	return container->join ? rendezvous_leave(&rendezvous, meeting, failure) : 0;
}

static int directory_enter(const struct container *container, bool first, struct failure *failure)
{
	const char *directory = container->directory == NULL ? "/" : container->directory;

	if (chdir(directory) == 0)
		return 0;
	if (!container->directory_optional)
		return FAIL(failure, FAILURE_DIRECTORY, errno, "%s", directory);
	notice(failure, first ? NOTICE_WARNING : NOTICE_VERBOSE,
	       "can't cd to %s in the container, starting in /: %s", directory, strerror(errno));
	return chdir("/") == 0 ? 0 : FAIL(failure, FAILURE_DIRECTORY, errno, "/");
}

int container_enter(const struct container *container, struct failure *failure)
{
	char **file_texts = calloc(container->variable_count + 1, sizeof *file_texts);
	bool first = false;

	if (file_texts == NULL)
		return FAIL(failure, FAILURE_MEMORY, errno, "environment");
	if (environment_read(container, file_texts, failure) < 0 ||
	    namespaces_enter(container, &first, failure) < 0 ||
	    environment_apply(container, file_texts, failure) < 0 ||
	    directory_enter(container, first, failure) < 0)
		return -1;
	/* Nothing inside may gain rights, and every rank is alike in this: ptrace_may_access compares. */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return FAIL(failure, FAILURE_SYSTEM, errno, "no_new_privs");
	if (container->seccomp && seccomp_fake_root(failure) < 0)
		return -1;
	return execute(container->command, failure);
}
