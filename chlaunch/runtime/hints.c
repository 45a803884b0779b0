/* Hints, said once per job. */
#include "hints.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static bool any_variable(const char *const *names)
{
	for (; *names != NULL; names++)
		if (getenv(*names) != NULL)
			return true;
	return false;
}

/* Rank 0 of a launcher that counts its ranks; without one, whoever made the container. */
static bool is_spokesman(bool first)
{
	static const char *const ranks[] = {"SLURM_PROCID", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"};

	for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++)
		if (getenv(ranks[i]) != NULL)
			return strcmp(getenv(ranks[i]), "0") == 0;
	return first;
}

/* Several tasks, and no launcher has told them of each other: an MPI program would run as that many jobs of
 * one rank. Other programs are right to ignore it. */
static bool are_singletons(void)
{
	static const char *const wired[] = {"PMIX_NAMESPACE",	    "PMI_FD", "PMI_RANK", "PMI_PORT",
					    "OMPI_COMM_WORLD_RANK", NULL};
	const char *tasks = getenv("SLURM_STEP_NUM_TASKS");

	return tasks != NULL && atoi(tasks) > 1 && getenv("SLURM_PROCID") != NULL && !any_variable(wired);
}

/* ch-launch or the SPANK plugin wrote the line, by the row of site-configs/generic.toml that takes their own
 * variables away: they know the image's MPI, or said that they don't, and --mpi is what fits or was asked
 * for. */
static bool is_planned(const struct container *container)
{
	for (size_t i = 0; i < container->variable_count; i++)
		if (container->variables[i].kind == VARIABLE_UNSET &&
		    strcmp(container->variables[i].name, "CHLAUNCH_*") == 0)
			return true;
	return false;
}

/* Servers that write to /run, /var/log, /var/lib or /var/tmp as their packages set them up. */
static bool is_writer(const char *name)
{
	static const char *const names[] = {
		"apache2",	   "httpd",   "mariadbd", "memcached",	 "mongod",   "mysqld",
		"nginx",	   "php-fpm", "postgres", "rserver",	 "rsyslogd", "rstudio-server",
		"rabbitmq-server", "sshd",    "slapd",	  "supervisord", NULL,
	};

	for (const char *const *row = names; *row != NULL; row++)
		if (strcmp(*row, name) == 0)
			return true;
	return false;
}

/* The program carries rights that no_new_privs and our user namespace take from it. */
static bool has_rights(const struct command_file *file)
{
	char value[64];

	if (!S_ISREG(file->status.st_mode))
		return false;
	if (file->status.st_mode & S_ISUID)
		return true;
	if (file->status.st_uid == geteuid()) /* the user's own: what they could give, they have */
		return false;
	/* EOVERFLOW: there is one, and its owner has no name here. */
	return getxattr(file->path, "security.capability", value, sizeof value) > 0 || errno == EOVERFLOW;
}

bool hints_wanted(bool first, const struct failure *failure)
{
	return failure->hint != NULL && is_spokesman(first);
}

void hints_give(const struct container *container, char *const *words, const struct command_file *file,
		const struct failure *failure)
{
	const char *slash = strrchr(words[0], '/'), *name = slash == NULL ? words[0] : slash + 1;
	const bool writable = container->write || container->write_fake != NULL;

	if (!is_planned(container) && are_singletons())
		failure->hint(HINT_SINGLETONS, getenv("SLURM_STEP_NUM_TASKS"));
	if (!writable && is_writer(name))
		failure->hint(HINT_WRITES, name);
	if (file->path[0] != '\0' && has_rights(file))
		failure->hint(HINT_SET_ID, file->path);
}
