/* What this ch-run can do. Charliecloud's names for its build options are kept; some depend on the kernel. */
#include "feature.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/xattr.h>

#include "cleanup.h"

static bool always(void)
{
	return true;
}

/* tmpfs takes user.* attributes since Linux 6.6; files in memory are of the same kind. */
static bool has_tmpfs_attributes(void)
{
	CLEANUP_FD int fd = memfd_create("ch-run", MFD_CLOEXEC);

	return fd >= 0 && fsetxattr(fd, "user.ch", "", 0, 0) == 0;
}

static bool has_overlay(void)
{
	FILE *file = fopen("/proc/filesystems", "re");
	char line[128];
	bool found = false;

	while (file != NULL && !found && fgets(line, sizeof line, file) != NULL)
		found = strstr(line, "\toverlay\n") != NULL;
	if (file != NULL)
		fclose(file);
	return found;
}

static const struct feature {
	const char *name;
	bool (*is_here)(void);
} features[] = {
	{"directory", always},	 {"squash", always},	       {"sif", always},
	{"erofs", always},	 {"storage", always},	       {"join", always},
	{"bind-ro", always},	 {"bind-layers", has_overlay}, {"tmpfs", always},
	{"bind-try", always},	 {"cd-try", always},	       {"seccomp", always},
	{"env-default", always}, {"extglob", always},	       {"json", always}, /* CDI's, read by ch-cdi */
	{"cdi", always},	 {"overlayfs", has_overlay},   {"tmpfs-xattrs", has_tmpfs_attributes},
};

void features_print(const char *separator)
{
	bool any = false;

	for (size_t i = 0; i < sizeof features / sizeof *features; i++)
		if (features[i].is_here()) {
			printf("%s\"%s\"", any ? separator : "", features[i].name);
			any = true;
		}
}

int feature_check(const char *name, struct failure *failure)
{
	for (size_t i = 0; i < sizeof features / sizeof *features; i++)
		if (strcmp(features[i].name, name) == 0 && features[i].is_here())
			return 0;
	return FAIL(failure, FAILURE_FEATURE, 0, "%s", name);
}
