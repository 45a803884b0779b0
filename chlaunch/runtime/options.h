/* ch-run's command line: words in, a struct container out. */
#ifndef CHLAUNCH_OPTIONS_H
#define CHLAUNCH_OPTIONS_H

#include "container.h"

struct options {
	struct container container;
	int verbosity; /* -q … -v: below 0 errors only, 0 warnings too, above 0 what is done */
	bool show_version;
	bool json;
};

/* Charliecloud's ch-run(1) is the language, argp(3) the parser. Usage errors and --help end the process, as
 * argp does. */
void options_parse(int argc, char **argv, struct options *options);

#endif
