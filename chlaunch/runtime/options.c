/* ch-run's command line. argp, as in Charliecloud: abbreviations, --opt=VALUE and --opt VALUE, exit 64. */
#include "options.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "option_rows.h"
#include "trace.h"

static const char WRITE_FAKE_SIZE[] = "12%"; /* as in Charliecloud */

/* Whole number from 0 to most, or a usage error. */
static long number_parse(const char *text, long most, const char *what, const struct argp_state *state)
{
	char *end;
	long number;

	errno = 0;
	number = strtol(text, &end, 10);
	if (errno != 0 || *end != '\0' || end == text || text[0] < '0' || text[0] > '9' || number > most)
		argp_error(state, "%s: not a whole number from 0 to %ld: %s", what, most, text);
	return number;
}

static void *array_grow(void *array, size_t count, size_t size, const struct argp_state *state)
{
	void *grown = reallocarray(array, count + 1, size);

	if (grown == NULL)
		argp_failure(state, EXIT_OURS, errno, "out of memory");
	return grown;
}

/* A copy to cut into pieces: the words themselves may have to be passed on (devices.c). */
static char *word_copy(const char *word, const struct argp_state *state)
{
	char *copy = word == NULL ? NULL : strdup(word);

	if (word != NULL && copy == NULL)
		argp_failure(state, EXIT_OURS, errno, "out of memory");
	return copy;
}

static void bind_keep(struct container *container, struct bind bind, const struct argp_state *state)
{
	container->binds = array_grow(container->binds, container->bind_count, sizeof bind, state);
	container->binds[container->bind_count++] = bind;
}

static void bind_add(struct container *container, const char *value, int key, const struct argp_state *state)
{
	char *words = word_copy(value, state), *colon = strchr(words, ':');
	struct bind bind = {.source = words,
			    .target = NULL,
			    .optional = key == OPTION_BIND_TRY,
			    .read_only = key == OPTION_BIND_RO};

	if (colon != NULL) {
		*colon = '\0';
		bind.target = colon + 1;
	}
	if (words[0] == '\0' || (bind.target != NULL && bind.target[0] == '\0'))
		argp_error(state, "--bind: write SRC or SRC:DST");
	bind_keep(container, bind, state);
}

static void layers_add(struct container *container, const char *value, const struct argp_state *state)
{
	char *words = word_copy(value, state), *colon = strrchr(words, ':');

	if (colon == NULL || colon[1] != '/' || words[0] != '/')
		argp_error(state, "--bind-layers: write DIR:DST or DIR:DIR:DST, with slashes in front");
	for (const char *next = words; next != NULL && next < colon; next = strchr(next + 1, ':'))
		if (next > words && next[1] != '/')
			argp_error(state, "--bind-layers: not an absolute path: %s", next + 1);
	*colon = '\0';
	bind_keep(container,
		  (struct bind){.source = words, .target = colon + 1, .read_only = true, .kind = BIND_LAYERS},
		  state);
}

static void tmpfs_add(struct container *container, const char *value, const struct argp_state *state)
{
	char *words = word_copy(value, state), *colon = strchr(words, ':');

	if (colon != NULL)
		*colon++ = '\0';
	if (words[0] == '\0' || (colon != NULL && colon[0] == '\0'))
		argp_error(state, "--tmpfs: write DST or DST:SIZE");
	bind_keep(container, (struct bind){.source = colon, .target = words, .kind = BIND_TMPFS}, state);
}

static void variable_add(struct options *options, int key, const char *value, const struct argp_state *state)
{
	struct container *container = &options->container;
	char *words = word_copy(value, state), *equals = words == NULL ? NULL : strchr(words, '=');
	struct variable_change change = {.kind = key == OPTION_UNSET_ENV     ? VARIABLE_UNSET
						 : key == OPTION_ENV_DEFAULT ? VARIABLE_DEFAULT
									     : VARIABLE_SET,
					 .name = words,
					 .literal = key == OPTION_ENV || options->env_no_expand};

	if ((key == OPTION_SET_ENV || key == OPTION_SET_ENV0) && equals == NULL) {
		change.kind = key == OPTION_SET_ENV ? VARIABLE_FILE : VARIABLE_FILE_NUL;
		change.name = NULL;
		change.value = words;
	} else if (change.kind != VARIABLE_UNSET) {
		if (equals == NULL || equals == words)
			argp_error(state, "write VAR=VALUE: %s", words);
		*equals = '\0';
		change.value = equals + 1;
	}
	container->variables =
		array_grow(container->variables, container->variable_count, sizeof change, state);
	container->variables[container->variable_count++] = change;
}

static void word_add(const char ***words, size_t *count, const char *word, const struct argp_state *state)
{
	*words = array_grow(*words, *count, sizeof **words, state);
	(*words)[(*count)++] = word;
}

static void directory_set(struct container *container, const char *directory, bool optional)
{
	container->directory = directory;
	container->directory_optional = optional;
}

/* What is mounted. */
static error_t option_mount(int key, char *value, const struct argp_state *state)
{
	struct options *options = state->input;
	struct container *container = &options->container;

	switch (key) {
	case 'b':
	case OPTION_BIND_RO:
	case OPTION_BIND_TRY:
		bind_add(container, value, key, state);
		return 0;
	case OPTION_BIND_LAYERS:
		layers_add(container, value, state);
		return 0;
	case OPTION_TMPFS:
		tmpfs_add(container, value, state);
		return 0;
	case OPTION_HOME:
		container->home = true;
		return 0;
	case OPTION_NO_PASSWD:
		container->keep_passwd = true;
		return 0;
	case OPTION_LD_CACHE:
		word_add(&container->ld_cache, &container->ld_cache_count, value, state);
		return 0;
	case OPTION_NO_TMP:
		container->keep_tmp = true;
		return 0;
	case OPTION_WRITE_TO:
		container->write_to = value;
		return 0;
	case 'm':
		if (access(value, F_OK) < 0)
			argp_error(state, "--mount: %s: %s", value, strerror(errno));
		return 0;
	case 's':
		container->storage = value;
		return 0;
	case 't':
		container->private_tmp = true;
		return 0;
	case 'w':
		container->write = true;
		return 0;
	case 'W':
		container->write_fake = value == NULL ? WRITE_FAKE_SIZE : value;
		return 0;
	case OPTION_WRITE_FAKE_SCOPE:
		if (strcmp(value, "node") != 0 && strcmp(value, "rank") != 0)
			argp_error(state, "--write-fake-scope: node or rank, not %s", value);
		container->write_fake_rank = value[0] == 'r';
		if (container->write_fake == NULL)
			container->write_fake = WRITE_FAKE_SIZE;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* What the command finds: directory, IDs, variables. */
static error_t option_container(int key, char *value, const struct argp_state *state)
{
	struct options *options = state->input;
	struct container *container = &options->container;

	switch (key) {
	case 'c':
	case OPTION_CD_TRY:
		directory_set(container, value, key == OPTION_CD_TRY);
		return 0;
	case 'g':
		container->gid = (gid_t)number_parse(value, UINT_MAX - 1, "--gid", state);
		return 0;
	case 'u':
		container->uid = (uid_t)number_parse(value, UINT_MAX - 1, "--uid", state);
		return 0;
	case OPTION_SECCOMP:
		container->seccomp = true;
		return 0;
	case OPTION_FUSE_SINGLE:
		container->fuse_single = true;
		return 0;
	case OPTION_ENV:
	case OPTION_ENV_DEFAULT:
	case OPTION_SET_ENV:
	case OPTION_SET_ENV0:
	case OPTION_UNSET_ENV:
		variable_add(options, key, value, state);
		return 0;
	case OPTION_ENV_NO_EXPAND:
		options->env_no_expand = true;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static error_t option_join(int key, const char *value, const struct argp_state *state)
{
	struct options *options = state->input;
	struct container *container = &options->container;

	switch (key) {
	case 'j':
		container->join = true;
		return 0;
	case OPTION_JOIN_TAG:
		if (value[0] == '\0')
			argp_error(state, "--join-tag: empty");
		container->join = true;
		container->join_tag = value;
		return 0;
	case OPTION_JOIN_CT: /* Charliecloud implies --join; a number is all that is asked of it */
		number_parse(value, INT_MAX, "--join-ct", state);
		container->join = true;
		return 0;
	case OPTION_JOIN_PID:
		container->join_pid = (pid_t)number_parse(value, INT_MAX, "--join-pid", state);
		if (container->join_pid == 0)
			argp_error(state, "--join-pid: no process has PID 0");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static error_t option_device(int key, const char *value, const struct argp_state *state)
{
	struct options *options = state->input;

	switch (key) {
	case 'd':
	case OPTION_DEVICE:
		if (value == NULL)
			options->all_devices = true;
		else
			word_add(&options->devices, &options->device_count, value, state);
		return 0;
	case OPTION_CDI_DIRS:
		options->device_directories = value;
		return 0;
	case OPTION_CDI_RESOLVED:
		options->devices_resolved = true;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static error_t option_general(int key, const char *value, const struct argp_state *state)
{
	struct options *options = state->input;

	switch (key) {
	case OPTION_TRACE:
		if (!trace_target_valid(value))
			argp_error(state, "--trace: not ADDRESS[,ADDRESS…]:PORT/TOKEN: %s", value);
		options->container.trace = value;
		return 0;
	case 'q':
	case 'v':
		if (key == 'q' ? options->verbosity > 0 : options->verbosity < 0)
			argp_error(state, "--quiet and --verbose exclude each other");
		options->verbosity += key == 'q' ? -1 : 1;
		return 0;
	case 'V':
		options->show_version = true;
		return 0;
	case OPTION_ERRORS:
		options->show_errors = true;
		return 0;
	case OPTION_FEATURE:
		options->feature = value;
		return 0;
	case OPTION_READ_PEER:
		options->peer = value;
		return 0;
	case OPTION_CLEAN_JOB:
		options->clean_job = (unsigned)number_parse(value, UINT_MAX - 1, "--clean-job", state);
		if (options->clean_job == 0)
			argp_error(state, "--clean-job: no job has number 0");
		return 0;
	case OPTION_JSON:
		options->json = true;
		return 0;
	case OPTION_COLOR:
	case OPTION_UNSAFE: /* Charliecloud wants it for an image that is given by its path in storage */
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static error_t words_end(struct options *options, char **words, int count, const struct argp_state *state)
{
	if (options->show_version || options->show_errors || options->feature != NULL ||
	    options->peer != NULL || options->clean_job != 0)
		return 0;
	if (options->container.write + (options->container.write_fake != NULL) +
		    (options->container.write_to != NULL) >
	    1)
		argp_error(state, "--write, --write-fake and --write-to exclude each other");
	if (options->container.private_tmp && options->container.keep_tmp)
		argp_error(state, "--private-tmp and --no-tmp exclude each other");
	if (options->container.join && options->container.join_pid != 0)
		argp_error(state, "--join and --join-pid exclude each other");
	if (count == 0)
		argp_error(state, "no image; write: ch-run [OPTION…] IMAGE -- COMMAND [ARG…]");
	options->container.image = words[0];
	options->container.command = words + 1;
	return 0;
}

static error_t option_parse(int key, char *value, struct argp_state *state)
{
	error_t result;

	if (key == ARGP_KEY_ARGS)
		return words_end(state->input, state->argv + state->next, state->argc - state->next, state);
	if (key == ARGP_KEY_NO_ARGS)
		return words_end(state->input, NULL, 0, state);
	result = option_mount(key, value, state);
	if (result == ARGP_ERR_UNKNOWN)
		result = option_container(key, value, state);
	if (result == ARGP_ERR_UNKNOWN)
		result = option_join(key, value, state);
	if (result == ARGP_ERR_UNKNOWN)
		result = option_device(key, value, state);
	return result == ARGP_ERR_UNKNOWN ? option_general(key, value, state) : result;
}

void options_parse(int argc, char **argv, struct options *options)
{
	static const struct argp parser = {
		.options = option_rows,
		.parser = option_parse,
		.args_doc = "IMAGE -- [COMMAND [ARG...]]",
		.doc = "Run a command in an unprivileged container.\v"
		       "IMAGE is a directory, a SquashFS, SIF or EROFS file, or the name of an image of "
		       "ch-image. "
		       "Without COMMAND, or with - in its place, the image's ENTRYPOINT and CMD are run. "
		       "Exit "
		       "codes: the command's own; 31 failure before it started, 49 it could not be executed, "
		       "64 "
		       "usage, 84 the server of an image file died, 87 feature not here. See ch-run(1).",
	};

	*options = (struct options){.container = {.uid = geteuid(), .gid = getegid()}};
	argp_parse(&parser, argc, argv, 0, NULL, options);
}
