/*
 * Who the user is inside. Thousands of ranks that ask LDAP for a name at once are how job starts die, so
 * nothing here asks: the user's name is $USER's, the group's is looked for in the local /etc/group only, by
 * one rank per node.
 */
#include "identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "environment.h"

enum {
	NAME_LENGTH = 256,
	NOBODY = 65534, /* the kernel's overflow ID: what is not mapped */
};

/* A name that can stand in a passwd line. */
static bool name_fits(const char *name)
{
	return name != NULL && name[0] != '\0' && strlen(name) < NAME_LENGTH && strpbrk(name, ":/\n") == NULL;
}

const char *identity_user(void)
{
	if (name_fits(getenv("USER")))
		return getenv("USER");
	return name_fits(getenv("LOGNAME")) ? getenv("LOGNAME") : "user";
}

static const char *uid_name(uid_t uid)
{
	if (uid == 0)
		return "root";
	if (uid == NOBODY)
		return "nobody";
	return uid == geteuid() ? identity_user() : "user";
}

void identity_passwd(const struct container *container, char *text, size_t size)
{
	const char *name = uid_name(container->uid);
	char home[4096];
	size_t used;

	environment_home(container, home, sizeof home);
	if (strpbrk(home, ":\n") != NULL)
		strcpy(home, "/");
	used = (size_t)snprintf(text, size, "%s:x:%u:%u:%s:%s:/bin/sh\n", name, container->uid,
				container->gid, name, home);
	if (container->uid != 0)
		used += (size_t)snprintf(text + used, size - used, "root:x:0:0:root:/root:/bin/sh\n");
	if (container->uid != NOBODY)
		snprintf(text + used, size - used, "nobody:x:%u:%u:nobody:/:/bin/false\n", NOBODY, NOBODY);
}

/* The name that the host's /etc/group file gives to gid; "group" where it gives none. */
static void gid_name(gid_t gid, char *name, size_t size)
{
	FILE *file = fopen("/etc/group", "re");
	char line[4096], found[NAME_LENGTH];
	unsigned number;

	snprintf(name, size, "group");
	while (file != NULL && fgets(line, sizeof line, file) != NULL) {
		if (sscanf(line, "%255[^:\n]:%*[^:]:%u:", found, &number) == 2 && number == gid) {
			snprintf(name, size, "%s", found);
			break;
		}
	}
	if (file != NULL)
		fclose(file);
}

void identity_group(const struct container *container, char *text, size_t size)
{
	char name[NAME_LENGTH];
	size_t used;

	gid_name(container->gid, name, sizeof name);
	used = (size_t)snprintf(text, size, "%s:x:%u:\n", name, container->gid);
	if (container->gid != 0)
		used += (size_t)snprintf(text + used, size - used, "root:x:0:\n");
	if (container->gid != NOBODY)
		snprintf(text + used, size - used, "nogroup:x:%u:\n", NOBODY);
}
