/* What a rendezvous is called: who meets there, and whose container is the same. */
#include "rendezvous_name.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "assemble.h"
#include "binds.h"
#include "namespaces.h"

enum { TAG_MOST = 200 }; /* bytes, percent-encoded: NAME_MAX less the rest of the name */

/* Each launcher tells its ranks of what job they are. Slurm's number is always in the name, then one of
 * these. */
static const char *const launcher_variables[] = {
	"PMIX_NAMESPACE",	   /* PMIx servers: srun --mpi=pmix, Open MPI's mpirun */
	"OMPI_MCA_ess_base_jobid", /* Open MPI's mpirun before PMIx */
	"PMI_JOBID",		   /* srun --mpi=pmi2 and others of PMI-2 */
};

/* Append word to name, percent-encoding all but letters, digits, '-' and '_'. False if it gets too long. */
static bool name_append(char *name, const char *word)
{
	size_t used = strlen(name);

	for (; *word != '\0'; word++) {
		const unsigned char c = (unsigned char)*word;
		const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
				   (c >= '0' && c <= '9') || c == '-' || c == '_';

		if (used + 4 > TAG_MOST)
			return false;
		used += (size_t)sprintf(name + used, plain ? "%c" : "%%%02x", c);
	}
	strcpy(name + used, ".");
	return true;
}

static bool tag_append_launcher(char *name)
{
	const char *step = getenv("SLURM_STEP_ID"), *other = NULL;
	char parent[16];

	if (step != NULL && !name_append(name, step))
		return false;
	for (size_t i = 0; other == NULL && i < sizeof launcher_variables / sizeof *launcher_variables; i++)
		other = getenv(launcher_variables[i]);
	if (other != NULL)
		return name_append(name, other);
	snprintf(parent, sizeof parent, "%d", getppid());
	return step != NULL || name_append(name, parent);
}

/*
 * JOB.TAG.USERNS-PIDNS: those who meet must start alike. PIDs mean something only in their PID namespace, and
 * a rank that is in a container already needs a user namespace below that one.
 */
int rendezvous_name(const struct container *container, char *name, size_t size, struct failure *failure)
{
	const char *job = getenv("SLURM_JOB_ID");
	size_t used;

	name[0] = '\0';
	if ((job != NULL && !name_append(name, job)) ||
	    !(container->join_tag != NULL ? name_append(name, container->join_tag)
					  : tag_append_launcher(name)))
		return FAIL(failure, FAILURE_JOIN_TAG, 0, "%s",
			    container->join_tag == NULL ? name : container->join_tag);
	used = strlen(name);
	snprintf(name + used, size - used, "%ju-%ju", (uintmax_t)namespace_own("user"),
		 (uintmax_t)namespace_own("pid"));
	return 0;
}

/* FNV-1a, 64 bits, over the word and its end. */
static uint64_t hash_word(uint64_t hash, const char *word)
{
	const char *byte = word == NULL ? "" : word;

	do {
		hash = (hash ^ (unsigned char)*byte) * 0x100000001b3;
	} while (*byte++ != '\0');
	return hash;
}

/* Does a word mean one thing here and another in another directory? An optional bind that is empty is left
 * out. */
static bool has_relative(const struct container *container)
{
	const char *storage = container->storage == NULL ? getenv("CH_IMAGE_STORAGE") : container->storage;
	char buffer[PATH_MAX];
	bool found = container->image[0] != '/' ||
		     (storage != NULL && storage[0] != '\0' && storage[0] != '/') || tmp_source()[0] != '/';

	for (size_t i = 0; i < container->bind_count && !found; i++) {
		const char *source = bind_source(&container->binds[i], buffer, sizeof buffer);

		found = container->binds[i].kind == BIND_PATH && source[0] != '/' && source[0] != '\0';
	}
	return found;
}

/* What makes the mount namespace. Words only: the image itself may be on a busy shared file system. */
uint64_t rendezvous_container(const struct container *container)
{
	char here[PATH_MAX] = "", buffer[PATH_MAX];
	uint64_t hash = 0xcbf29ce484222325;

	if (has_relative(container) && getcwd(here, sizeof here) == NULL)
		here[0] = '\0';
	hash = hash_word(hash_word(hash, here), container->image);
	snprintf(buffer, sizeof buffer, "%zu",
		 container->bind_count); /* so that no bind looks like what follows */
	hash = hash_word(hash, buffer);
	for (size_t i = 0; i < container->bind_count; i++) {
		hash = hash_word(hash, bind_source(&container->binds[i], buffer, sizeof buffer));
		hash = hash_word(hash, container->binds[i].target);
		hash = hash_word(hash, container->binds[i].read_only ? "r" : NULL);
		hash = hash_word(hash, container->binds[i].kind == BIND_TMPFS	 ? "t"
				       : container->binds[i].kind == BIND_LAYERS ? "l"
										 : NULL);
	}
	for (size_t i = 0; i < container->ld_cache_count; i++)
		hash = hash_word(hash, container->ld_cache[i]);
	hash = hash_word(hash, container->storage == NULL ? getenv("CH_IMAGE_STORAGE") : container->storage);
	hash = hash_word(hash_word(hash, container->write_fake), container->write_to);
	hash = hash_word(hash, tmp_source()); /* Slurm sets TMPDIR=/tmp for the first task of a node only */
	hash = hash_word(hash, container->home ? getenv("HOME") : NULL);
	return hash_word(hash, (const char[]){container->write ? 'w' : 'r', container->home ? 'h' : '-',
					      container->keep_passwd ? 'k' : '-',
					      container->write_fake_rank ? 'a' : '-',
					      container->write_fake != NULL ? 'f' : '-',
					      container->write_to != NULL ? 'o' : '-',
					      container->private_tmp ? 't' : '-',
					      container->keep_tmp ? 'k' : '-', '\0'});
}
