/* The table of failures: what is said, what to do about it, and how ch-run ends. */
#include "failure.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if !HAVE_STRERRORNAME /* glibc before 2.32 */
static const char *strerrorname_np(int error)
{
	(void)error;
	return "errno";
}
#endif

/* Codes are never given to another row. docs/chlaunch-errors.7 is made from this. */
static const struct failure_row rows[FAILURE_COUNT] = {
	[FAILURE_SYSTEM] =
		{1, "can't go on",
		 "a call to the kernel failed that should not: please report it with the line above",
		 EXIT_OURS},
	[FAILURE_MEMORY] = {2, "out of memory", "free memory on this node, or ask the job for more",
			    EXIT_OURS},
	[FAILURE_SETUID] = {3, "refusing to run set-user-ID or set-group-ID",
			    "containers need no rights: chmod u-s,g-s ch-run", EXIT_OURS},
	[FAILURE_IMAGE_MISSING] =
		{10, "can't find image",
		 "give the path of a directory or of an image file; is it visible on this node?", EXIT_OURS},
	[FAILURE_IMAGE_NAME] = {11, "can't find image",
				"give a path, or the name of an image in storage: see ch-image list, "
				"--storage and $CH_IMAGE_STORAGE",
				EXIT_OURS},
	[FAILURE_IMAGE_KIND] =
		{12, "unknown image type",
		 "an image is a directory, a SquashFS, SIF or EROFS file, or a name in ch-image's storage",
		 EXIT_OURS},
	[FAILURE_IMAGE_UNREADABLE] =
		{13, "can't open image",
		 "the image must be readable, and every directory above it searchable, by you", EXIT_OURS},
	[FAILURE_IMAGE_NOT_ROOT] = {14, "not the root of an image, a directory to mount on is missing",
				    "an image has /dev, /proc and /sys; is this the right directory?",
				    EXIT_OURS},
	[FAILURE_IMAGE_DAMAGED] =
		{15, "image file is damaged or of a kind that can't be served",
		 "copy or build it again; unsquashfs -s FILE tells what is in a SquashFS header", EXIT_OURS},
	[FAILURE_IMAGE_READ_ONLY] =
		{16, "--write is impossible with this image",
		 "use --write-fake for files that may vanish, or convert the image to a directory first",
		 EXIT_OURS},
	[FAILURE_IMAGE_HOST] = {17, "not possible where the image is /",
				"give an image, or leave out the option", EXIT_OURS},
	[FAILURE_STORE] =
		{18, "can't use image in storage",
		 "the storage directory is damaged or of another version: pull or build the image again",
		 EXIT_OURS},
	[FAILURE_USER_NAMESPACE] =
		{20, "can't make a user namespace",
		 "unprivileged user namespaces are switched off here: see sysctl "
		 "kernel.unprivileged_userns_clone, user.max_user_namespaces, "
		 "kernel.apparmor_restrict_unprivileged_userns, or the outer container's seccomp filter",
		 EXIT_OURS},
	[FAILURE_USER_NAMESPACE_LIMIT] = {21, "can't make another user namespace",
					  "the limit is reached: an administrator can raise sysctl "
					  "user.max_user_namespaces and user.max_mnt_namespaces",
					  EXIT_OURS},
	[FAILURE_ID_MAP] =
		{22, "can't map user and group IDs",
		 "a security module may forbid it: see sysctl kernel.apparmor_restrict_unprivileged_userns",
		 EXIT_OURS},
	[FAILURE_MOUNT] = {30, "can't mount", "the kernel refused; dmesg may say more, and so may --verbose",
			   EXIT_OURS},
	[FAILURE_BIND_SOURCE] =
		{31, "can't bind: source not found",
		 "make it on this node, or use --bind-try to leave it out where it is missing", EXIT_OURS},
	[FAILURE_BIND_TARGET] = {32, "can't bind: can't reach or make destination",
				 "choose another destination, or make it in the image", EXIT_OURS},
	[FAILURE_BIND_KIND] = {33, "can't bind: a directory and a file can't cover each other",
			       "source and destination must both be directories, or neither", EXIT_OURS},
	[FAILURE_BIND_INSIDE] =
		{34, "can't bind: destination missing inside another mount",
		 "make it on the host first; only the image's own tree gets mount points by itself",
		 EXIT_OURS},
	[FAILURE_BIND_CROWDED] =
		{35, "can't bind: too many files beside the missing destination",
		 "make the destination in the image, bind a directory above it, or use --write-fake",
		 EXIT_OURS},
	[FAILURE_HOME_UNSET] = {36, "can't bind home directory: $HOME not set",
				"set HOME, or leave out --home", EXIT_OURS},
	[FAILURE_TMPFS_SIZE] =
		{37, "can't use this size",
		 "a size is bytes, with k, m or g behind it, or a part of the memory like 20%: see tmpfs(5)",
		 EXIT_OURS},
	[FAILURE_OVERLAY_DENIED] = {38, "this kernel lets no user mount an overlay",
				    "--write-fake, and images of several layers by name, need Linux 5.11 or "
				    "newer: have ch-image pull, import or build it here again, or ch-convert "
				    "it to a directory and use --write",
				    EXIT_OURS},
	[FAILURE_OVERLAY] = {39, "can't mount overlay",
			     "the image's file system may not do as a layer (an overlay over overlays, a "
			     "directory with mounts in it): copy it elsewhere",
			     EXIT_OURS},
	[FAILURE_LD_CACHE] = {40, "can't make /etc/ld.so.cache",
			      "--ld-cache runs the image's own ldconfig: it has none, or it failed (musl "
			      "images have none and need none: use --set-env=LD_LIBRARY_PATH=...)",
			      EXIT_OURS},
	[FAILURE_DIRECTORY] = {50, "can't cd to initial working directory",
			       "give a directory of the container to --cd, or bind it", EXIT_OURS},
	[FAILURE_ENVIRONMENT_FILE] =
		{51, "can't read environment file",
		 "--set-env takes VAR=VALUE, a file on the host, or nothing for the image's /ch/environment",
		 EXIT_OURS},
	[FAILURE_ENVIRONMENT_LINE] = {52, "can't parse variable, no '='", "write NAME=VALUE, one a line",
				      EXIT_OURS},
	[FAILURE_COMMAND_NONE] = {53, "no CMD, ENTRYPOINT, or command specified",
				  "write the command after the image: ch-run IMAGE -- COMMAND", EXIT_OURS},
	[FAILURE_COMMAND_FILE] = {54, "can't read the image's ENTRYPOINT or CMD",
				  "/ch/entrypoint or /ch/cmd is damaged: write the command after the image, "
				  "or build the image again",
				  EXIT_OURS},
	[FAILURE_JOIN_PLACE] = {60, "join: no directory of yours to meet the other ranks in",
				"one of /dev/shm, $XDG_RUNTIME_DIR's /run/user/UID and /tmp must be "
				"writable; if another user holds the name, tell an administrator",
				EXIT_OURS},
	[FAILURE_JOIN_FILE] = {61, "join: can't use rendezvous file", "remove it, or give another --join-tag",
			       EXIT_OURS},
	[FAILURE_JOIN_LOCK] =
		{62, "join: waited 120 s for the rendezvous file",
		 "the process named holds it: is it stopped? end it, or give another --join-tag", EXIT_OURS},
	[FAILURE_JOIN_IDS] = {63, "join: the ranks that are already here have other IDs",
			      "ranks that join share one --uid and --gid; give this one its own --join-tag",
			      EXIT_OURS},
	[FAILURE_JOIN_MEMBERS] = {64, "join: none of the living ranks lets us in",
				  "give another --join-tag, and please report this", EXIT_OURS},
	[FAILURE_JOIN_PID] = {65, "join: can't join the namespaces of process",
			      "--join-pid takes a living process of yours on this node", EXIT_OURS},
	[FAILURE_JOIN_TAG] = {66, "join: tag too long", "--join-tag takes up to 200 bytes", EXIT_USAGE},
	[FAILURE_FUSE_DENIED] = {70, "can't open /dev/fuse",
				 "image files need it: an administrator must chmod 666 /dev/fuse, by a udev "
				 "rule so that it lasts; until then convert the image to a directory",
				 EXIT_OURS},
	[FAILURE_FUSE_ABSENT] = {71, "no FUSE here",
				 "image files need it: an administrator must modprobe fuse, and the node's "
				 "/dev must have fuse; until then convert the image to a directory",
				 EXIT_OURS},
	[FAILURE_FUSE_MOUNT] = {72, "can't mount image file",
				"a user may mount FUSE since Linux 4.18, unless a security module forbids "
				"it; else convert the image to a directory",
				EXIT_OURS},
	[FAILURE_SERVER_MISSING] = {73, "can't serve image file, the program for it is missing",
				    "an administrator can install the package on all nodes; until then "
				    "convert the image to a directory",
				    EXIT_OURS},
	[FAILURE_SERVER] =
		{74, "the image's file server does not serve",
		 "is the image damaged? unsquashfs -s FILE and the server's own words above may tell",
		 EXIT_FUSE},
	[FAILURE_SERVER_DIED] =
		{75, "the image's file server died, the ranks of this image on this node can't go on",
		 "who killed it? out of memory (dmesg) is the usual reason; the image itself is unharmed",
		 EXIT_FUSE},
	[FAILURE_COMMAND_MISSING] = {80, "can't exec: command not found in the image",
				     "give its path in the container; does the image have it?", EXIT_EXEC},
	[FAILURE_COMMAND_WILDCARD] =
		{81, "can't exec: command not found in the image, and the words look like files of the host",
		 "the host's shell expands wildcards before ch-run starts: quote them, ch-run IMAGE -- sh -c "
		 "'COMMAND *'",
		 EXIT_EXEC},
	[FAILURE_COMMAND_IS_DIRECTORY] = {82, "can't exec: is a directory", "give a program", EXIT_EXEC},
	[FAILURE_COMMAND_MODE] = {83, "can't exec: not executable", "chmod +x it", EXIT_EXEC},
	[FAILURE_COMMAND_NOEXEC] = {84, "can't exec: on a file system mounted noexec",
				    "move the image or the program to another file system", EXIT_EXEC},
	[FAILURE_COMMAND_INTERPRETER] = {85, "can't exec: its interpreter is not in the image",
					 "the program needs it: install it in the image, or fix the #! line",
					 EXIT_EXEC},
	[FAILURE_COMMAND_ARCHITECTURE] =
		{86, "can't exec: built for another architecture",
		 "get the image for this machine's architecture; with qemu-user-static and binfmt_misc (flag "
		 "F) installed by an administrator it would run, slowly",
		 EXIT_EXEC},
	[FAILURE_COMMAND_BINFMT] =
		{87, "can't exec: built for another architecture, and its emulator can't be reached",
		 "binfmt_misc has an emulator for it that is not in the image: an administrator must "
		 "register it with flag F (package qemu-user-static)",
		 EXIT_EXEC},
	[FAILURE_COMMAND_FORMAT] = {88, "can't exec: neither a program nor a script",
				    "is it the right file? a script needs a #! line", EXIT_EXEC},
	[FAILURE_COMMAND_TOO_BIG] = {89, "can't exec: arguments and environment are too long",
				     "a single word or variable holds 128 KiB, all together a quarter of the "
				     "stack limit: see execve(2); --unset-env removes variables",
				     EXIT_EXEC},
	[FAILURE_COMMAND] = {90, "can't exec", "see execve(2) for what this error means", EXIT_EXEC},
	[FAILURE_SECCOMP] = {93, "can't fake root: seccomp filter refused",
			     "an outer container's seccomp filter may forbid it; or leave out --seccomp",
			     EXIT_OURS},
	[FAILURE_SECCOMP_MISSING] = {94, "can't fake root: no seccomp filters here",
				     "the kernel needs CONFIG_SECCOMP_FILTER, and an outer container must "
				     "let seccomp(2) through; or leave out --seccomp",
				     EXIT_FEATURE},
	[FAILURE_SECCOMP_TEST] = {95,
				  "can't fake root: the seccomp filter is in place, but a call is not faked",
				  "an outer container may intercept seccomp(2), or this is an architecture "
				  "that ch-run does not know; leave out --seccomp",
				  EXIT_OURS},
	[FAILURE_FEATURE] = {91, "feature not in this ch-run", "ch-run --version --json lists the features",
			     EXIT_FEATURE},
	[FAILURE_CDI_HELPER] = {92, "can't start ch-cdi, which reads CDI specifications",
				"it is installed beside ch-run with the Python package chlaunch; ch-launch "
				"--ch-device needs it on the submitting side only",
				EXIT_OURS},
	[HINT_SINGLETONS] = {100, "several tasks, but srun gives no PMI",
			     "an MPI program would run as separate jobs of one rank: add --mpi=pmix (see "
			     "srun --mpi=list); silence this with CHLAUNCH_NO_HINTS=1",
			     EXIT_NONE},
	[HINT_WRITES] = {101, "this program usually writes below /var or /run, which are read-only here",
			 "add --write-fake, or --bind a directory of yours there; silence this with "
			 "CHLAUNCH_NO_HINTS=1",
			 EXIT_NONE},
	[HINT_SET_ID] = {102, "set-user-ID and file capabilities have no effect in a container",
			 "ping, sudo, su and mount run with your rights only; for ping an administrator can "
			 "set sysctl net.ipv4.ping_group_range; silence this with CHLAUNCH_NO_HINTS=1",
			 EXIT_NONE},
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

void failure_lines(const struct failure *failure, char *text, size_t size)
{
	const struct failure_row *row = &rows[failure->id];
	const int pid = getpid();
	char words[1536];

	failure_word(failure, words, sizeof words);
	snprintf(text, size, "ch-run[%d]: error: %s\nch-run[%d]: hint: %s [CH-%04u]\n", pid, words, pid,
		 row->remedy, row->code);
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
