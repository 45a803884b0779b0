/* The table of failures: what is said, what to do about it, and how ch-run ends. */
#include "failure.h"

#include <stdio.h>
#include <string.h>

#if !HAVE_STRERRORNAME /* glibc before 2.32 */
static const char *strerrorname_np(int error)
{
	(void)error;
	return "errno";
}
#endif

static const struct failure_row rows[FAILURE_COUNT] = {
	[FAILURE_SYSTEM] = {"can't go on", NULL, EXIT_OURS},
	[FAILURE_MEMORY] = {"out of memory", NULL, EXIT_OURS},
	[FAILURE_IMAGE_MISSING] =
		{"can't find image",
		 "give the path of a directory that holds an unpacked image; is it visible on this node?",
		 EXIT_OURS},
	[FAILURE_IMAGE_NOT_DIRECTORY] = {"image is not a directory",
					 "give the directory that holds the unpacked image", EXIT_OURS},
	[FAILURE_IMAGE_UNREADABLE] = {"can't open image",
				      "every directory above the image must be searchable by you", EXIT_OURS},
	[FAILURE_IMAGE_NOT_ROOT] = {"not the root of an image, a directory to mount on is missing",
				    "an image has /dev, /proc and /sys; is this the right directory?",
				    EXIT_OURS},
	[FAILURE_USER_NAMESPACE] =
		{"can't make a user namespace",
		 "unprivileged user namespaces are switched off here: see sysctl "
		 "kernel.unprivileged_userns_clone, user.max_user_namespaces, "
		 "kernel.apparmor_restrict_unprivileged_userns, or the outer container's seccomp filter",
		 EXIT_OURS},
	[FAILURE_USER_NAMESPACE_LIMIT] = {"can't make another user namespace",
					  "the limit is reached: an administrator can raise sysctl "
					  "user.max_user_namespaces and user.max_mnt_namespaces",
					  EXIT_OURS},
	[FAILURE_ID_MAP] =
		{"can't map user and group IDs",
		 "a security module may forbid it: see sysctl kernel.apparmor_restrict_unprivileged_userns",
		 EXIT_OURS},
	[FAILURE_MOUNT] = {"can't mount", NULL, EXIT_OURS},
	[FAILURE_BIND_SOURCE] =
		{"can't bind: source not found",
		 "make it on this node, or use --bind-try to leave it out where it is missing", EXIT_OURS},
	[FAILURE_BIND_TARGET] = {"can't bind: can't reach or make destination",
				 "choose another destination, or make it in the image", EXIT_OURS},
	[FAILURE_BIND_KIND] = {"can't bind: a directory and a file can't cover each other",
			       "source and destination must both be directories, or neither", EXIT_OURS},
	[FAILURE_BIND_INSIDE] =
		{"can't bind: destination missing inside another mount",
		 "make it on the host first; only the image's own tree gets mount points by itself",
		 EXIT_OURS},
	[FAILURE_BIND_CROWDED] = {"can't bind: too many files beside the missing destination",
				  "make the destination in the image, or bind a directory above it",
				  EXIT_OURS},
	[FAILURE_HOME_UNSET] = {"can't bind home directory: $HOME not set", "set HOME, or leave out --home",
				EXIT_OURS},
	[FAILURE_DIRECTORY] = {"can't cd to initial working directory",
			       "give a directory of the container to --cd, or bind it", EXIT_OURS},
	[FAILURE_ENVIRONMENT_FILE] =
		{"can't read environment file",
		 "--set-env takes VAR=VALUE, a file on the host, or nothing for the image's "
		 "/ch/environment",
		 EXIT_OURS},
	[FAILURE_ENVIRONMENT_LINE] = {"can't parse variable, no '='", "write NAME=VALUE, one a line",
				      EXIT_OURS},
	[FAILURE_JOIN_PLACE] =
		{"join: no directory of yours to meet the other ranks in",
		 "one of /dev/shm, $XDG_RUNTIME_DIR's /run/user/UID and /tmp must be writable; if another "
		 "user holds the name, tell an administrator",
		 EXIT_OURS},
	[FAILURE_JOIN_FILE] = {"join: can't use rendezvous file", "remove it, or give another --join-tag",
			       EXIT_OURS},
	[FAILURE_JOIN_LOCK] =
		{"join: waited 120 s for the rendezvous file",
		 "the process named holds it: is it stopped? end it, or give another --join-tag", EXIT_OURS},
	[FAILURE_JOIN_IDS] = {"join: the ranks that are already here have other IDs",
			      "ranks that join share one --uid and --gid; give this one its own --join-tag",
			      EXIT_OURS},
	[FAILURE_JOIN_MEMBERS] = {"join: none of the living ranks lets us in",
				  "give another --join-tag, and please report this", EXIT_OURS},
	[FAILURE_JOIN_PID] = {"join: can't join the namespaces of process",
			      "--join-pid takes a living process of yours on this node", EXIT_OURS},
	[FAILURE_JOIN_TAG] = {"join: tag too long", "--join-tag takes up to 200 bytes", EXIT_USAGE},
	[FAILURE_SECCOMP] = {"can't fake root: seccomp filter refused",
			     "an outer container's seccomp filter may forbid it; or leave out --seccomp",
			     EXIT_OURS},
	[FAILURE_SECCOMP_MISSING] = {"can't fake root: no seccomp filters here",
				     "the kernel needs CONFIG_SECCOMP_FILTER, and an outer container must "
				     "let seccomp(2) through; or leave out --seccomp",
				     EXIT_FEATURE},
	[FAILURE_SECCOMP_TEST] =
		{"can't fake root: the seccomp filter is in place, but a call is not faked",
		 "an outer container may intercept seccomp(2), or this is an architecture that "
		 "ch-run does not know; leave out --seccomp",
		 EXIT_OURS},
	[FAILURE_COMMAND_MISSING] =
		{"can't exec: command not found in the image",
		 "give its path in the container; does the image have it? (wildcards are the host "
		 "shell's: quote them and use sh -c)",
		 EXIT_EXEC},
	[FAILURE_COMMAND_IS_DIRECTORY] = {"can't exec: is a directory", "give a program", EXIT_EXEC},
	[FAILURE_COMMAND_MODE] = {"can't exec: not executable", "chmod +x it", EXIT_EXEC},
	[FAILURE_COMMAND_NOEXEC] = {"can't exec: on a file system mounted noexec",
				    "move the image or the program to another file system", EXIT_EXEC},
	[FAILURE_COMMAND_INTERPRETER] = {"can't exec: its interpreter is not in the image",
					 "the program needs it: install it in the image, or fix the #! line",
					 EXIT_EXEC},
	[FAILURE_COMMAND_ARCHITECTURE] = {"can't exec: built for another architecture",
					  "get the image for this machine's architecture", EXIT_EXEC},
	[FAILURE_COMMAND_FORMAT] = {"can't exec: neither a program nor a script", NULL, EXIT_EXEC},
	[FAILURE_COMMAND] = {"can't exec", NULL, EXIT_EXEC},
};

const struct failure_row *failure_row(enum failure_id id)
{
	return &rows[id];
}

int failure_set(struct failure *failure, enum failure_id id, int error, const char *file, int line,
		const char *format, ...)
{
	va_list arguments;

	failure->id = id;
	failure->error = error;
	failure->file = file;
	failure->line = line;
	va_start(arguments, format);
	vsnprintf(failure->subject, sizeof failure->subject, format, arguments);
	va_end(arguments);
	return -1;
}

void failure_word(const struct failure *failure, char *text, size_t size)
{
	const char *message = rows[failure->id].message;

	if (failure->error == 0)
		snprintf(text, size, "%s: %s (%s:%d)", message, failure->subject, failure->file,
			 failure->line);
	else
		snprintf(text, size, "%s: %s: %s (%s:%d %d %s)", message, failure->subject,
			 strerror(failure->error), failure->file, failure->line, failure->error,
			 strerrorname_np(failure->error));
}

void notice(const struct failure *failure, enum notice_level level, const char *format, ...)
{
	char text[1024];
	va_list arguments;

	if (failure->notice == NULL)
		return;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	failure->notice(level, text);
}
