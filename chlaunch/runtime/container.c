/* The one way into a container. */
#include "container.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "assemble.h"
#include "command.h"
#include "environment.h"
#include "execute.h"
#include "hints.h"
#include "image.h"
#include "kernel.h"
#include "namespaces.h"
#include "overlay.h"
#include "rendezvous.h"
#include "seccomp.h"
#include "trace.h"

/*
 * An image file is mounted, detached, in a mount namespace in which its server and keeper then stay. If the
 * server can't say that all files are the container's user's, that is in a user namespace of its own too, in
 * which the ID it reports is another name for the user, and the container's lies below that.
 */
static int file_prepare(const struct container *container, struct image *image,
			const struct rendezvous *rendezvous, bool in_namespace, struct trace *trace,
			struct failure *failure)
{
	bool outer = !in_namespace && image_wants_outer(image, container);
	uid_t uid = outer ? image_owner(image) : container->uid;
	gid_t gid = outer ? image_owner(image) : container->gid;

	if ((!in_namespace && namespace_user_make(uid, gid, failure) < 0) ||
	    namespace_mount_make(failure) < 0)
		return -1;
	if (outer && !kernel_takes_mounts(true)) { /* a sandbox's refusal shows only where one may mount */
		outer = false;
		uid = container->uid;
		gid = container->gid;
		if (namespace_user_make(uid, gid, failure) < 0 || namespace_mount_make(failure) < 0)
			return -1;
	}
	trace_note(trace, TRACE_ENTERED);
	if (image_serve(image, container, uid, gid, rendezvous, failure) < 0)
		return -1;
	return outer ? namespace_user_make(container->uid, container->gid, failure) : 0;
}

/* User namespace, where there is none to be in yet, and image server. */
static int image_prepare(const struct container *container, struct image *image,
			 const struct rendezvous *rendezvous, bool in_namespace, struct trace *trace,
			 struct failure *failure)
{
	if (image->kind == IMAGE_FILE)
		return file_prepare(container, image, rendezvous, in_namespace, trace, failure);
	return in_namespace ? 0 : namespace_user_make(container->uid, container->gid, failure);
}

/* The first of a node's ranks, or of its container, makes what all share. */
static int namespaces_make(const struct container *container, const struct rendezvous *rendezvous,
			   enum meeting meeting, bool *served, struct trace *trace, struct failure *failure)
{
	struct image image;
	int result = -1;

	if (image_open(&image, container, failure) == 0 &&
	    image_prepare(container, &image, rendezvous, meeting != MEETING_NOBODY, trace, failure) == 0 &&
	    namespace_mount_make(failure) == 0) {
		trace_note(trace, TRACE_ENTERED);
		result = assemble(container, &image, failure);
	}
	*served = image.kind == IMAGE_FILE;
	image_close(&image);
	return result;
}

/* first: this rank made the container; served: by starting a server for its image. */
static int namespaces_enter(const struct container *container, bool *first, bool *served, struct trace *trace,
			    struct failure *failure)
{
	struct rendezvous rendezvous;
	enum meeting meeting = MEETING_NOBODY;

	if (container->join_pid != 0)
		return namespaces_join_process(container->join_pid, failure);
	if (container->join && rendezvous_enter(&rendezvous, container, &meeting, trace, failure) < 0)
		return -1;
	*first = meeting != MEETING_CONTAINER;
	if (*first && namespaces_make(container, container->join ? &rendezvous : NULL, meeting, served, trace,
				      failure) < 0)
		return -1;
	if (container->write_fake_rank && overlay_private(container, *first, failure) < 0)
		return -1;
	if (*first)
		trace_note(trace, TRACE_MOUNTED);
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

/* An image whose server has died answers everything with the same two errors: name the cause, not what was
 * being done. */
static int died_check(struct failure *failure)
{
	if (failure->error == ENOTCONN || failure->error == ECONNABORTED)
		failure->id = FAILURE_SERVER;
	return -1;
}

int container_enter(const struct container *container, struct failure *failure)
{
	struct environment_text *texts = calloc(container->variable_count + 1, sizeof *texts);
	struct trace trace = trace_begin(container->trace);
	/* asked before the container's environment, from which ch-launch takes it away */
	const bool hints_silenced = getenv("CHLAUNCH_NO_HINTS") != NULL;
	struct command_file file = {.fd = -1};
	bool first = false, served = false, hints;
	char **words;

	if (texts == NULL)
		return FAIL(failure, FAILURE_MEMORY, errno, "environment");
	if (environment_read(container, texts, failure) < 0 ||
	    namespaces_enter(container, &first, &served, &trace, failure) < 0)
		return died_check(failure);
	if (container->join || container->join_pid != 0)
		trace_note(&trace, TRACE_JOINED);
	if (environment_apply(container, texts, failure) < 0 ||
	    directory_enter(container, first, failure) < 0)
		return died_check(failure);
	words = command_words(container, failure);
	if (words == NULL)
		return died_check(failure);
	hints = !hints_silenced && hints_wanted(first, failure);
	if (hints || served)
		execute_find(words[0], &file);
	if (hints)
		hints_give(container, words, &file, failure);
	/* Nothing inside may gain rights, and every rank is alike in this: ptrace_may_access compares. */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return FAIL(failure, FAILURE_SYSTEM, errno, "no_new_privs");
	if (container->seccomp && seccomp_fake_root(failure) < 0)
		return -1;
	if (served)
		execute_prefetch(&file);
	trace_note(&trace, TRACE_EXEC);
	trace_send(&trace);
	execute(words, failure);
	return died_check(failure);
}
