/* Whether a process can read the memory of one that is not its relative, as ranks do: for ch-doctor. */
#ifndef CHLAUNCH_PEER_H
#define CHLAUNCH_PEER_H

#include "failure.h"

/*
 * names is OWN:OTHER. Meet the other in the working directory, where each makes a file of its own name, read
 * its memory, and print one line: "read=E dumpable=D", E an error number, 0 if it could be read. Both stay
 * until both have tried.
 */
int peer_measure(const char *names, struct failure *failure);

#endif
