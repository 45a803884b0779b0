/* Failures are values: a row of the table, errno, the place, the thing concerned. Only the edge words them.
 */
#ifndef CHLAUNCH_FAILURE_H
#define CHLAUNCH_FAILURE_H

#include <stdarg.h>
#include <stddef.h>

/* What may go wrong, and what users should be told though nothing did (HINT_). The rows are failure.c's. */
enum failure_id {
	FAILURE_SYSTEM,
	FAILURE_MEMORY,
	FAILURE_SETUID,
	FAILURE_IMAGE_MISSING,
	FAILURE_IMAGE_NAME,
	FAILURE_IMAGE_KIND,
	FAILURE_IMAGE_UNREADABLE,
	FAILURE_IMAGE_NOT_ROOT,
	FAILURE_IMAGE_DAMAGED,
	FAILURE_IMAGE_READ_ONLY,
	FAILURE_IMAGE_HOST,
	FAILURE_STORE,
	FAILURE_USER_NAMESPACE,
	FAILURE_USER_NAMESPACE_LIMIT,
	FAILURE_ID_MAP,
	FAILURE_MOUNT,
	FAILURE_BIND_SOURCE,
	FAILURE_BIND_TARGET,
	FAILURE_BIND_KIND,
	FAILURE_BIND_INSIDE,
	FAILURE_BIND_CROWDED,
	FAILURE_HOME_UNSET,
	FAILURE_TMPFS_SIZE,
	FAILURE_OVERLAY_DENIED,
	FAILURE_OVERLAY,
	FAILURE_LD_CACHE,
	FAILURE_DIRECTORY,
	FAILURE_ENVIRONMENT_FILE,
	FAILURE_ENVIRONMENT_LINE,
	FAILURE_COMMAND_NONE,
	FAILURE_COMMAND_FILE,
	FAILURE_JOIN_PLACE,
	FAILURE_JOIN_FILE,
	FAILURE_JOIN_LOCK,
	FAILURE_JOIN_IDS,
	FAILURE_JOIN_MEMBERS,
	FAILURE_JOIN_PID,
	FAILURE_JOIN_TAG,
	FAILURE_FUSE_DENIED,
	FAILURE_FUSE_ABSENT,
	FAILURE_FUSE_MOUNT,
	FAILURE_SERVER_MISSING,
	FAILURE_SERVER,
	FAILURE_SERVER_DIED,
	FAILURE_COMMAND_MISSING,
	FAILURE_COMMAND_WILDCARD,
	FAILURE_COMMAND_IS_DIRECTORY,
	FAILURE_COMMAND_MODE,
	FAILURE_COMMAND_NOEXEC,
	FAILURE_COMMAND_INTERPRETER,
	FAILURE_COMMAND_ARCHITECTURE,
	FAILURE_COMMAND_BINFMT,
	FAILURE_COMMAND_FORMAT,
	FAILURE_COMMAND_TOO_BIG,
	FAILURE_COMMAND,
	FAILURE_SECCOMP,
	FAILURE_SECCOMP_MISSING,
	FAILURE_SECCOMP_TEST,
	FAILURE_FEATURE,
	FAILURE_CDI_HELPER,
	HINT_SINGLETONS,
	HINT_WRITES,
	HINT_SET_ID,
	FAILURE_COUNT
};

/* How ch-run ends when it cannot become the command (Charliecloud's numbers). */
enum exit_code {
	EXIT_NONE = 0, /* it does not end: a hint */
	EXIT_OURS = 31,
	EXIT_EXEC = 49,
	EXIT_USAGE = 64,
	EXIT_FUSE = 84, /* the server of a FUSE image ended before the command began */
	EXIT_FEATURE = 87,
};

enum notice_level {
	NOTICE_WARNING,
	NOTICE_VERBOSE,
};

struct failure {
	enum failure_id id;
	int error;	  /* errno, 0 where no call failed */
	const char *file; /* source file and line that noticed */
	int line;
	char subject[1024];
	/* How the runtime speaks before it fails or goes on: set by the edge, may be NULL. */
	void (*notice)(enum notice_level level, const char *text);
	/* The same for a HINT_ row, said of subject. */
	void (*hint)(enum failure_id id, const char *subject);
};

struct failure_row {
	unsigned code; /* stable, for users to look up: CH-0012 */
	const char *message;
	const char *remedy;
	enum exit_code exit_code;
};

const struct failure_row *failure_row(enum failure_id id);

/* Fill in *failure and return -1, so that `return FAIL(…)` is one line. The subject is a printf format. */
int failure_set(struct failure *failure, enum failure_id id, int error, const char *file, int line,
		const char *format, ...) __attribute__((format(printf, 6, 7)));

#define FAIL(failure, id, error, ...) failure_set(failure, id, error, __FILE__, __LINE__, __VA_ARGS__)

/* "MESSAGE: SUBJECT: STRERROR (file.c:LINE ERRNO NAME)" */
void failure_word(const struct failure *failure, char *text, size_t size);

/* The two lines that the user reads: "ch-run[PID]: error: …" and "ch-run[PID]: hint: … [CH-0012]". */
void failure_lines(const struct failure *failure, char *text, size_t size);

void notice(const struct failure *failure, enum notice_level level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
