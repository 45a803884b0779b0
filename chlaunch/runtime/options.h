/* ch-run's command line: words in, a struct container out. */
#ifndef CHLAUNCH_OPTIONS_H
#define CHLAUNCH_OPTIONS_H

#include "container.h"

struct options {
	struct container container;
	int verbosity; /* -q … -v: below 0 errors only, 0 warnings too, above 0 what is done */
	bool show_version;
	bool json;
	bool show_errors;
	const char *feature; /* only say whether we have it */
	const char *peer;    /* only measure with another process: its name and the other's */
	unsigned clean_job;  /* only remove what that job left; 0: none */
	bool env_no_expand;
	const char **devices; /* CDI devices, kinds or files */
	size_t device_count;
	bool all_devices;
	const char *device_directories; /* NULL: ch-cdi's own */
	bool devices_resolved;		/* ch-cdi has made options of the devices */
};

/* Charliecloud's ch-run(1) is the language, argp(3) the parser. Usage errors and --help end the process, as
 * argp does. */
void options_parse(int argc, char **argv, struct options *options);

#endif
