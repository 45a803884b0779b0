/*
 * The SPANK plugin, on the submitting side only: glue between Slurm and the planner. sbatch and salloc pass
 * the options they were given on to the steps of their job. srun, where an image is asked for, becomes the
 * srun that ch-launch would have written: same process, other words. Nothing is done in slurmstepd and
 * slurmd.
 */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <getopt.h>
#include <limits.h>
#include <slurm/spank.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "options.h"
#include "planner.h"

SPANK_PLUGIN(chlaunch, 1)

enum { ROWS = sizeof rows / sizeof *rows, EXIT_OURS = 31, EXIT_EXEC = 49, EXIT_USAGE = 64 };

static const long DEADLINE_SECONDS = 10;

/*
 * Holds the PID of the srun that the plugin works for. Who finds its own has nothing to do: it is a second
 * copy of the plugin in that process, or one in the srun that this process has become.
 */
static const char MARK[] = "CHLAUNCH_PLUGIN";

/* Variables that begin so are passed to a job even with --export=NONE (sbatch(1)). */
static const char PASSED_DOWN[] = "SLURM_SPANK_";

static const char IMAGE[] = "CHLAUNCH_IMAGE";
static const char NONE[] = "none";

/* What Slurm has read of our options, in order. */
static struct {
	bool active;
	bool settled;
	bool allow_root;
	size_t count;
	char *values[ROWS];
} state;

/* Append text to a list with one value a line, or begin one. */
static int list_append(char **list, const char *text)
{
	char *more;

	if (asprintf(&more, "%s%s%s", *list ? *list : "", *list && **list ? "\n" : "", text) < 0)
		return -1;
	free(*list);
	*list = more;
	return 0;
}

static int option_given(int index, const char *text, int remote)
{
	const struct row *row = &rows[index];
	const char *value = row->kind == FLAG ? "yes" : row->kind == OFF ? "no" : text != NULL ? text : "yes";

	if (remote)
		return 0;
	state.count++;
	state.allow_root |= strcmp(row->name, "ch-allow-root") == 0;
	if (row->kind != OPTIONAL && *value == '\0') {
		slurm_error("--%s is empty", row->name);
		return -1;
	}
	if (row->kind == LIST)
		return list_append(&state.values[index], value);
	free(state.values[index]);
	state.values[index] = strdup(*value ? value : "yes");
	return state.values[index] == NULL ? -1 : 0;
}

static bool is_marked(void)
{
	const char *mark = getenv(MARK);

	return mark != NULL && strtol(mark, NULL, 10) == getpid();
}

static int mark_set(void)
{
	char text[16];

	snprintf(text, sizeof text, "%d", getpid());
	return setenv(MARK, text, 1);
}

static bool is_submitting(void)
{
	return spank_context() == S_CTX_LOCAL || spank_context() == S_CTX_ALLOCATOR;
}

int slurm_spank_init(spank_t spank, int count, char *arguments[])
{
	(void)count, (void)arguments;
	if (!is_submitting() || is_marked())
		return 0;
	if (mark_set() < 0)
		return -1;
	state.active = true;
	for (int i = 0; i < (int)ROWS; i++) {
		struct spank_option option = {
			.name = (char *)rows[i].name,
			.arginfo = (char *)rows[i].value,
			.usage = (char *)rows[i].help,
			.has_arg = rows[i].kind <= OFF	      ? 0
				   : rows[i].kind == OPTIONAL ? 2
							      : 1,
			.val = i,
			.cb = option_given,
		};

		if (spank_option_register(spank, &option) != ESPANK_SUCCESS)
			return -1;
	}
	return 0;
}

/* Make an option the default of the job's steps, as if the user had set its twin in the script. */
static int option_pass_down(const struct row *row, const char *value)
{
	CLEANUP_FREE char *text = NULL, *lasting = NULL;
	const char *before = row->kind == LIST ? getenv(row->variable) : NULL;

	if ((before != NULL && list_append(&text, before) < 0) || list_append(&text, value) < 0)
		return -1;
	if (asprintf(&lasting, "%s%s", PASSED_DOWN, row->variable) < 0) {
		lasting = NULL;
		return -1;
	}
	return setenv(row->variable, text, 1) < 0 || setenv(lasting, text, 1) < 0 ? -1 : 0;
}

/* Slurm's own way of passing options on keeps one value of each, and asks slurmstepd to read it. */
static void slurms_forget(spank_t spank, const struct row *row)
{
	char name[128];

	snprintf(name, sizeof name, "_SLURM_SPANK_OPTION_%s_%s", plugin_name, row->name);
	for (char *at = name; *at; at++)
		if (*at == '-')
			*at = '_';
	unsetenv(name);
	spank_job_control_unsetenv(spank, name);
}

static int options_pass_down(spank_t spank)
{
	for (size_t i = 0; i < ROWS; i++) {
		if (state.values[i] == NULL)
			continue;
		if (option_pass_down(&rows[i], state.values[i]) < 0) {
			slurm_error("chlaunch: can't pass --%s on: %s", rows[i].name, strerror(errno));
			return -1;
		}
		slurms_forget(spank, &rows[i]);
		free(state.values[i]);
		state.values[i] = NULL;
	}
	return 0;
}

/*
 * The texts in a file of /proc/self, each with a NUL after it. The array, which has room for two more, and,
 * at its first one, the text are to be freed. NULL: see errno.
 */
static char **texts_read(const char *path)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t length = 0, room = 0, count = 0;
	char *text = NULL, **texts;
	ssize_t got = fd < 0 ? -1 : 1;

	while (got > 0) {
		if (room - length < BUFSIZ && (text = realloc(text, room += room + 2 * BUFSIZ)) == NULL)
			return NULL;
		got = read(fd, text + length, room - length - 1);
		length += got > 0 ? (size_t)got : 0;
	}
	if (got < 0)
		return NULL;
	text[length] = '\0';
	texts = calloc(length + 3, sizeof *texts);
	for (size_t at = 0; texts != NULL && at < length; at += strlen(text + at) + 1)
		texts[count++] = text + at;
	return texts;
}

static void cleanup_texts(char ***texts)
{
	if (*texts != NULL)
		free(**texts);
	free(*texts);
}

static bool is_one_of_hosts(const char *command)
{
	const char *name = strrchr(command, '/');

	for (size_t i = 0; i < sizeof host_commands / sizeof *host_commands; i++)
		if (fnmatch(host_commands[i], name ? name + 1 : command, 0) == 0)
			return true;
	return false;
}

/* A variable with an image that steps have by default. */
static bool is_set(const char *name)
{
	const char *value = getenv(name);

	return value != NULL && *value != '\0';
}

static bool is_inherited(void)
{
	const char *image = getenv(IMAGE);

	if (image != NULL && strcmp(image, NONE) == 0)
		return false;
	return is_set(IMAGE) || is_set("SLURM_SPANK_CHLAUNCH_IMAGE") || is_set("SLURM_CONTAINER");
}

/* Whether the planner is to be asked. command_at: where the command is among words, 0 if not known. */
static bool is_wanted(char *const words[], int command_at)
{
	if (state.count > 0)
		return true;
	for (int i = 1; words[i] != NULL && (command_at == 0 || i < command_at); i++)
		if (strncmp(words[i], "--conta", 7) == 0)
			return true;
	return is_inherited() && (command_at == 0 || !is_one_of_hosts(words[command_at]));
}

/*
 * Where the command is among words, by getopt_long(3), which stopped there; 0 if that is not known: of a line
 * with several steps it is the place in one of them, and which one is another in each release of Slurm.
 */
static int command_find(char *const words[])
{
	int count = 0;

	for (; words[count] != NULL; count++)
		if (strcmp(words[count], ":") == 0)
			return 0;
	return optind < count ? optind : 0;
}

static bool may_root(void)
{
	static const char *const yes[] = {"1", "yes", "true", "on"}; /* launch/options.py */
	const char *value = getenv("CHLAUNCH_ALLOW_ROOT");

	for (size_t i = 0; value != NULL && i < sizeof yes / sizeof *yes; i++)
		if (strcmp(value, yes[i]) == 0)
			return true;
	return geteuid() != 0 || state.allow_root;
}

/* Read what plugstack.conf says. */
static int planner_configure(int count, char *arguments[], struct planner *planner)
{
	for (int i = 0; i < count; i++) {
		char *end = NULL;

		if (strncmp(arguments[i], "planner=", 8) == 0) {
			planner->path = arguments[i] + 8;
			continue;
		}
		if (strncmp(arguments[i], "deadline=", 9) == 0)
			planner->seconds = strtol(arguments[i] + 9, &end, 10);
		if (end == NULL || *end != '\0' || planner->seconds < 1 || planner->seconds > 3600) {
			slurm_error("chlaunch: plugstack.conf: can't read %s", arguments[i]);
			return -1;
		}
	}
	if (planner->path == NULL || planner->path[0] != '/') {
		slurm_error(
			"chlaunch: plugstack.conf must say planner=/PATH/TO/PYTHON, one that has chlaunch");
		return -1;
	}
	return 0;
}

/* The defaults of the job have done their work, and Slurm would care for a container of its own. */
static const char *const spent[] = {"SLURM_CONTAINER=", "SLURM_SPANK_CHLAUNCH_"};

static bool is_spent(const char *variable)
{
	for (size_t i = 0; i < sizeof spent / sizeof *spent; i++)
		if (strncmp(variable, spent[i], strlen(spent[i])) == 0)
			return true;
	return false;
}

/* Take out what is spent, and add the mark for this process. */
static int environment_change(char *environment[])
{
	size_t kept = 0;

	for (size_t i = 0; environment[i] != NULL; i++)
		if (!is_spent(environment[i]))
			environment[kept++] = environment[i];
	environment[kept + 1] = NULL;
	return asprintf(&environment[kept], "%s=%d", MARK, getpid()) < 0 ? -1 : 0;
}

/* Become srun with other words, those in answer from offset on; returns the exit code if that fails. */
static int srun_become(const char *srun, char *name, const struct answer *answer, size_t offset,
		       char *environment[])
{
	CLEANUP_FREE char **argv = calloc(answer->length + 2, sizeof *argv);
	size_t count = 0;

	if (argv == NULL || environment_change(environment) < 0) {
		slurm_error("chlaunch: no memory");
		return EXIT_OURS;
	}
	argv[count++] = name;
	for (size_t at = offset; at < answer->length; at += strlen(answer->text + at) + 1)
		argv[count++] = answer->text + at;
	execve(srun, argv, environment);
	slurm_error("chlaunch: can't execute %s: %s%s", srun, strerror(errno),
		    errno == E2BIG ? "; give fewer or shorter --ch- options and arguments" : "");
	return EXIT_EXEC;
}

/* Ask and obey; returns 0 where srun shall go on as it is, else its exit code, -1 for 0. */
static int srun_plan(const struct planner *planner, char *words[], int command_at)
{
	/* as it was when srun started, which has added to it since then, as have other plugins */
	__attribute__((cleanup(cleanup_texts))) char **environment = texts_read("/proc/self/environ");
	CLEANUP_FREE char *text = NULL;
	struct endings endings = {0};
	struct answer answer = {0};
	char srun[PATH_MAX];
	const ssize_t length = readlink("/proc/self/exe", srun, sizeof srun - 1);
	int code;

	if (environment == NULL || length < 0) {
		slurm_error("chlaunch: can't read /proc/self: %s", strerror(errno));
		return EXIT_OURS;
	}
	srun[length] = '\0';
	code = planner_ask(planner, srun, words, command_at, environment, &endings, &answer);
	text = answer.text;
	if (code != 0)
		return code;
	if (answer.length > 0 && answer.text[answer.length - 1] == '\0') {
		if (strcmp(text, "stay") == 0) {
			endings_restore(&endings);
			return 0;
		}
		if (strcmp(text, "stop") == 0)
			return -1;
		if (strcmp(text, "run") == 0)
			return srun_become(srun, words[0], &answer, sizeof "run", environment);
	}
	slurm_error("chlaunch: %s gave no answer; is it of this plugin's release?", planner->path);
	return EXIT_OURS;
}

static int srun_look(int count, char *arguments[])
{
	struct planner planner = {.seconds = DEADLINE_SECONDS};
	__attribute__((cleanup(cleanup_texts))) char **words = texts_read("/proc/self/cmdline");
	int command_at;

	if (words == NULL) {
		slurm_error("chlaunch: can't read /proc/self/cmdline: %s", strerror(errno));
		return EXIT_OURS;
	}
	command_at = command_find(words);
	if (!is_wanted(words, command_at))
		return 0;
	if (!may_root()) {
		slurm_error("chlaunch: you are root: images are for users; --ch-allow-root insists");
		return EXIT_USAGE;
	}
	if (planner_configure(count, arguments, &planner) < 0)
		return EXIT_OURS;
	state.settled = true;
	return srun_plan(&planner, words, command_at);
}

int slurm_spank_init_post_opt(spank_t spank, int count, char *arguments[])
{
	int code;

	unsetenv(MARK); /* all copies have looked; it is not for the tasks */
	if (!state.active || state.settled)
		return 0;
	if (spank_context() == S_CTX_ALLOCATOR)
		return options_pass_down(spank);
	code = srun_look(count, arguments);
	if (code != 0)
		_exit(code < 0 ? 0 : code); /* srun itself would end with its own code */
	return 0;
}
