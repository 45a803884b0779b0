/* CDI devices are read by a helper in Python, which starts ch-run again with plain options. */
#ifndef CHLAUNCH_DEVICES_H
#define CHLAUNCH_DEVICES_H

#include "options.h"

/* Become ch-cdi, for the words argv: returns only on failure, always -1. */
int devices_exec(const struct options *options, char **argv, struct failure *failure);

#endif
