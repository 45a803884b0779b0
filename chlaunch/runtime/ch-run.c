/* ch-run: words in, a container entered; the one place that words failures and ends the process. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "clean.h"
#include "container.h"
#include "devices.h"
#include "failure.h"
#include "feature.h"
#include "options.h"
#include "peer.h"

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

static void hint_print(enum failure_id id, const char *subject)
{
	const struct failure_row *row = failure_row(id);

	if (verbosity >= 0)
		fprintf(stderr, "ch-run[%d]: hint: %s: %s: %s [CH-%04u]\n", getpid(), row->message, subject,
			row->remedy, row->code);
}

static int version_print(bool json)
{
	if (!json) {
		puts(CHLAUNCH_VERSION);
		return EXIT_SUCCESS;
	}
	fputs("{\"version\": \"" CHLAUNCH_VERSION "\", \"features\": [", stdout);
	features_print(", ");
	puts("]}");
	return EXIT_SUCCESS;
}

/* The table of failures: code, exit code, message and remedy; tabs between them, or JSON. */
static int errors_print(bool json)
{
	if (json)
		putchar('[');
	for (enum failure_id id = 0; id < FAILURE_COUNT; id++) {
		const struct failure_row *row = failure_row(id);

		if (json)
			printf("%s{\"code\": \"CH-%04u\", \"exit\": %d, \"message\": \"%s\", \"remedy\": "
			       "\"%s\"}",
			       id == 0 ? "" : ",\n ", row->code, row->exit_code, row->message, row->remedy);
		else
			printf("CH-%04u\t%d\t%s\t%s\n", row->code, row->exit_code, row->message, row->remedy);
	}
	if (json)
		puts("]");
	return EXIT_SUCCESS;
}

static int failure_print(const struct failure *failure)
{
	char text[2048];

	failure_lines(failure, text, sizeof text);
	fputs(text, stderr);
	return failure_row(failure->id)->exit_code;
}

static int exit_well(void)
{
	exit(EXIT_SUCCESS);
}

/* Do what the words ask for; -1 on failure, all else ends the process. */
static int start(int argc, char **argv, struct failure *failure)
{
	static struct options options;

	if (getauxval(AT_SECURE) != 0)
		return FAIL(failure, FAILURE_SETUID, 0, "%s", argv[0]);
	options_parse(argc, argv, &options);
	verbosity = options.verbosity;
	if (options.show_version)
		exit(version_print(options.json));
	if (options.show_errors)
		exit(errors_print(options.json));
	if (options.feature != NULL)
		return feature_check(options.feature, failure) < 0 ? -1 : exit_well();
	if (options.peer != NULL)
		return peer_measure(options.peer, failure) < 0 ? -1 : exit_well();
	if (options.clean_job != 0)
		return job_clean(options.clean_job, failure) < 0 ? -1 : exit_well();
	if ((options.device_count > 0 || options.all_devices) && !options.devices_resolved)
		return devices_exec(&options, argv, failure);
	return container_enter(&options.container, failure);
}

/* Where standard input, output or error is closed, a file of ours would get its number, and our words. */
static void descriptors_hold(void)
{
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR | O_CLOEXEC) != fd)
			return;
}

int main(int argc, char **argv)
{
	struct failure failure = {.notice = notice_print, .hint = hint_print};

	descriptors_hold();
	start(argc, argv, &failure);
	return failure_print(&failure);
}
