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

enum { NAME_MOST = 256 };

/* A name that can stand in a passwd line. */
static bool name_fits(const char *name)
{
	return name != NULL && name[0] != '\0' && strlen(name) < NAME_MOST && strpbrk(name, ":/\n") == NULL;
}

const char *identity_user(void)
{
	if (name_fits(getenv("USER")))
		return getenv("USER");
	return name_fits(getenv("LOGNAME")) ? getenv("LOGNAME") : "user";
}

void identity_passwd(const struct container *container, char *text, size_t size)
{
	char home[4096];
	size_t used = 0;

	environment_home(container, home, sizeof home);
	if (strpbrk(home, ":\n") != NULL)
		strcpy(home, "/");
	if (container->uid != 0)
		used = (size_t)snprintf(text, size, "root:x:0:0:root:/root:/bin/sh\n");
	snprintf(text + used, size - used, "%s:x:%u:%u:%s:%s:/bin/sh\n%s", identity_user(), container->uid,
		 container->gid, identity_user(), home,
		 container->uid == 65534 ? "" : "nobody:x:65534:65534:nobody:/:/bin/false\n");
}

/* The name that the host's /etc/group file gives to our own group; "group" where it gives none. */
static void group_name(gid_t gid, char *name, size_t size)
{
	FILE *file = fopen("/etc/group", "re");
	char line[4096], found[NAME_MOST];
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
	char name[NAME_MOST];
	size_t used = 0;

	group_name(getegid(), name, sizeof name);
	if (container->gid != 0)
		used = (size_t)snprintf(text, size, "root:x:0:\n");
	snprintf(text + used, size - used, "%s:x:%u:\n%s", name, container->gid,
		 container->gid == 65534 ? "" : "nogroup:x:65534:\n");
}
