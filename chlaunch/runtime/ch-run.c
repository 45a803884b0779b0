/* ch-run: words in, a container entered; the one place that words failures and ends the process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "container.h"
#include "failure.h"
#include "options.h"

static int verbosity;

static void say(const char *kind, const char *text)
{
	fprintf(stderr, "ch-run[%d]: %s: %s\n", getpid(), kind, text);
}

static void notice_print(enum notice_level level, const char *text)
{
	if (level == NOTICE_WARNING && verbosity >= 0)
		say("warning", text);
	else if (level == NOTICE_VERBOSE && verbosity > 0)
		say("info", text);
}

static int version_print(bool json)
{
	if (json)
		puts("{\"version\": \"" CHLAUNCH_VERSION
		     "\", \"features\": [\"directory\", \"join\", \"bind-try\", \"cd-try\", "
		     "\"env-default\", \"seccomp\"]}");
	else
		puts(CHLAUNCH_VERSION);
	return EXIT_SUCCESS;
}

static bool any_variable(const char *const *names)
{
	for (; *names != NULL; names++)
		if (getenv(*names) != NULL)
			return true;
	return false;
}

/*
 * Several tasks, and no launcher has told them of each other: an MPI program would run as that many jobs of
 * one rank. Said by the first task only; other programs are right to ignore it.
 */
static void hint_singletons(void)
{
	static const char *const wired[] = {"PMIX_NAMESPACE",	    "PMI_FD", "PMI_RANK", "PMI_PORT",
					    "OMPI_COMM_WORLD_RANK", NULL};
	const char *tasks = getenv("SLURM_STEP_NUM_TASKS"), *rank = getenv("SLURM_PROCID");

	if (verbosity < 0 || getenv("CHLAUNCH_NO_HINTS") != NULL || tasks == NULL || atoi(tasks) < 2 ||
	    rank == NULL || strcmp(rank, "0") != 0 || any_variable(wired))
		return;
	fprintf(stderr,
		"ch-run[%d]: hint: %s tasks, but srun gives no PMI: an MPI program would run as %s separate "
		"jobs of one rank; "
		"add --mpi=pmix (see srun --mpi=list), or silence this with CHLAUNCH_NO_HINTS=1\n",
		getpid(), tasks, tasks);
}

static int failure_print(const struct failure *failure)
{
	const struct failure_row *row = failure_row(failure->id);
	char text[2048];

	failure_word(failure, text, sizeof text);
	say("error", text);
	if (row->remedy != NULL)
		say("hint", row->remedy);
	return row->exit_code;
}

int main(int argc, char **argv)
{
	struct failure failure = {.notice = notice_print};
	struct options options;

	options_parse(argc, argv, &options);
	if (options.show_version)
		return version_print(options.json);
	verbosity = options.verbosity;
	hint_singletons();
	container_enter(&options.container, &failure);
	return failure_print(&failure);
}
