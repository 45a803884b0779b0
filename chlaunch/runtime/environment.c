/* The command's environment. The rules are Charliecloud's ch-run(1), so that its users' scripts find what
 * they expect. */
#include "environment.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "identity.h"

extern char **environ;

enum { FILE_MOST = 1 << 20 };

void environment_home(const struct container *container, char *home, size_t size)
{
	home[0] = '\0';
	if (container->home)
		snprintf(home, size, "/home/%s", identity_user());
	for (size_t i = 0; i < container->variable_count; i++) {
		const struct variable_change *change = &container->variables[i];

		if (change->kind == VARIABLE_SET && strcmp(change->name, "HOME") == 0 &&
		    change->value[0] == '/')
			snprintf(home, size, "%s", change->value);
	}
	if (home[0] == '\0')
		snprintf(home, size, "/");
}

/* $NAME items of a colon-separated value become the variable's value, or vanish where it is unset. */
static char *value_expand(const char *value)
{
	size_t used = 0;
	FILE *stream;
	char *text = NULL;

	stream = open_memstream(&text, &used);
	if (stream == NULL)
		return NULL;
	for (const char *item = value, *separator = "";; item++) {
		const size_t length = strcspn(item, ":");
		char *name = length > 1 && item[0] == '$' ? strndup(item + 1, length - 1) : NULL;

		if (name == NULL) {
			fprintf(stream, "%s%.*s", separator, (int)length, item);
			separator = ":";
		} else if (getenv(name) != NULL && getenv(name)[0] != '\0') {
			fprintf(stream, "%s%s", separator, getenv(name));
			separator = ":";
		}
		free(name);
		item += length;
		if (*item == '\0')
			break;
	}
	return fclose(stream) == 0 ? text : NULL;
}

static int variable_set(const char *name, const char *value, bool literal, struct failure *failure)
{
	CLEANUP_FREE char *expanded = literal ? strdup(value) : value_expand(value);

	if (expanded == NULL || setenv(name, expanded, 1) < 0)
		return FAIL(failure, FAILURE_MEMORY, errno, "%s", name);
	return 0;
}

static void variables_unset(const char *glob)
{
	for (size_t i = 0; environ[i] != NULL;) {
		const size_t length = strcspn(environ[i], "=");
		CLEANUP_FREE char *name = strndup(environ[i], length);

		/* unsetenv closes the gap, so the next variable moves here. execve(2) hands on words without
		 * '=' too: those it does not find. */
		if (name == NULL || environ[i][length] == '\0' || fnmatch(glob, name, FNM_EXTMATCH) != 0 ||
		    unsetenv(name) < 0)
			i++;
	}
}

/* One NAME=VALUE line of a file; single quotes around the value are dropped. */
static int line_apply(char *line, const struct variable_change *change, const char *shown,
		      struct failure *failure)
{
	char *value = strchr(line, '=');
	size_t length;

	if (line[0] == '\0')
		return 0;
	if (value == NULL || value == line)
		return FAIL(failure, FAILURE_ENVIRONMENT_LINE, 0, "%s: %.100s", shown, line);
	*value++ = '\0';
	length = strlen(value);
	if (length >= 2 && value[0] == '\'' && value[length - 1] == '\'') {
		value[length - 1] = '\0';
		value++;
	}
	return variable_set(line, value, change->literal, failure);
}

/* An environment file's text; *length is without the NUL character that ends it. */
static char *file_read(const char *path, size_t *size, struct failure *failure)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	CLEANUP_FREE char *text = malloc(FILE_MOST + 1);
	struct stat status;
	ssize_t length = 0, part = 0;
	char *result;

	if (fd < 0 || text == NULL || fstat(fd, &status) < 0) {
		FAIL(failure, FAILURE_ENVIRONMENT_FILE, errno, "%s", path);
		return NULL;
	}
	while (length < FILE_MOST && (part = read(fd, text + length, (size_t)(FILE_MOST - length))) > 0)
		length += part;
	if (part < 0 && S_ISREG(status.st_mode)) {
		FAIL(failure, FAILURE_ENVIRONMENT_FILE, errno, "%s", path);
		return NULL;
	}
	if (!S_ISREG(status.st_mode) || status.st_size > FILE_MOST) {
		FAIL(failure, FAILURE_ENVIRONMENT_FILE, 0, "%s: not a file of at most 1 MiB", path);
		return NULL;
	}
	text[length] = '\0';
	*size = (size_t)length;
	result = text;
	text = NULL;
	return result;
}

static int text_apply(struct environment_text *text, const struct variable_change *change, const char *shown,
		      struct failure *failure)
{
	const char separator = change->kind == VARIABLE_FILE_NUL ? '\0' : '\n';
	char *line = text->bytes, *end = text->bytes + text->length, *next;

	for (; line < end; line = next + 1) {
		next = memchr(line, separator, (size_t)(end - line));
		if (next == NULL)
			next = end;
		*next = '\0';
		if (line_apply(line, change, shown, failure) < 0)
			return -1;
	}
	return 0;
}

static bool is_file(const struct variable_change *change)
{
	return change->kind == VARIABLE_FILE || change->kind == VARIABLE_FILE_NUL;
}

int environment_read(const struct container *container, struct environment_text *texts,
		     struct failure *failure)
{
	for (size_t i = 0; i < container->variable_count; i++) {
		const struct variable_change *change = &container->variables[i];

		if (!is_file(change) || change->value == NULL)
			continue;
		texts[i].bytes = file_read(change->value, &texts[i].length, failure);
		if (texts[i].bytes == NULL)
			return -1;
	}
	return 0;
}

static int file_apply(const struct variable_change *change, struct environment_text *host_text,
		      struct failure *failure)
{
	struct environment_text own;
	int result;

	if (change->value != NULL)
		return text_apply(host_text, change, change->value, failure);
	own.bytes = file_read("/ch/environment", &own.length, failure);
	result = own.bytes == NULL ? -1 : text_apply(&own, change, "/ch/environment", failure);
	free(own.bytes);
	return result;
}

static int change_apply(const struct variable_change *change, struct environment_text *host_text,
			struct failure *failure)
{
	switch (change->kind) {
	case VARIABLE_SET:
		return variable_set(change->name, change->value, change->literal, failure);
	case VARIABLE_UNSET:
		variables_unset(change->name);
		return 0;
	case VARIABLE_DEFAULT:
		return getenv(change->name) != NULL
			       ? 0
			       : variable_set(change->name, change->value, change->literal, failure);
	case VARIABLE_FILE:
	case VARIABLE_FILE_NUL:
		return file_apply(change, host_text, failure);
	}
	return 0;
}

/* Programs of an image whose /bin is no link to /usr/bin would not be found by many hosts' PATH. */
static int path_complete(void)
{
	const char *path = getenv("PATH");
	char text[32768];

	if (path == NULL)
		return setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	snprintf(text, sizeof text, ":%s:", path);
	if (strstr(text, ":/bin:") != NULL || strlen(path) > sizeof text - 16)
		return 0;
	snprintf(text, sizeof text, "%s:/bin", path);
	return setenv("PATH", text, 1);
}

/* X clients look for their key in $HOME, which is another directory now. */
static int xauthority_keep(const char *host_home)
{
	char path[4096];

	if (getenv("DISPLAY") == NULL || getenv("XAUTHORITY") != NULL || host_home == NULL)
		return 0;
	snprintf(path, sizeof path, "%s/.Xauthority", host_home);
	return access(path, R_OK) < 0 ? 0 : setenv("XAUTHORITY", path, 1);
}

static int defaults_apply(const struct container *container)
{
	char home[4096];

	if (xauthority_keep(getenv("HOME")) < 0)
		return -1;
	environment_home(container, home, sizeof home);
	if (strcmp(home, "/") == 0 && access("/root", F_OK) == 0)
		strcpy(home, "/root");
	return setenv("HOME", home, 1) < 0 || path_complete() < 0 || unsetenv("TMPDIR") < 0 ? -1 : 0;
}

int environment_apply(const struct container *container, struct environment_text *texts,
		      struct failure *failure)
{
	/* With the host's own root directory, its variables are right as they are. */
	if (strcmp(container->image, "/") != 0 && defaults_apply(container) < 0)
		return FAIL(failure, FAILURE_MEMORY, errno, "environment");
	for (size_t i = 0; i < container->variable_count; i++)
		if (change_apply(&container->variables[i], &texts[i], failure) < 0)
			return -1;
	if (setenv("CH_RUNNING", "Weird Al Yankovic", 1) < 0)
		return FAIL(failure, FAILURE_MEMORY, errno, "CH_RUNNING");
	return 0;
}
