/* When a rank came to which point of its start, told in one datagram to whoever launched it. */
#ifndef CHLAUNCH_TRACE_H
#define CHLAUNCH_TRACE_H

#include <stdbool.h>
#include <stdint.h>

enum trace_point {
	TRACE_BEGUN,
	TRACE_WAITED,  /* the lock taken under which ranks meet */
	TRACE_ENTERED, /* namespaces made */
	TRACE_MOUNTED, /* root file system put together */
	TRACE_JOINED,  /* in the container that others made, or known to those who come later */
	TRACE_EXEC,    /* all done but exec */
	TRACE_COUNT
};

enum { TRACE_NUMBER_SIZE = 10 };

struct trace {
	const char *target;	     /* as --trace has it; NULL: nobody asks, nothing is noted */
	int64_t points[TRACE_COUNT]; /* microseconds of CLOCK_MONOTONIC; 0: did not come there */
	char rank[TRACE_NUMBER_SIZE], size[TRACE_NUMBER_SIZE]; /* "-": not known */
};

/* To be called before the environment becomes the container's: it says which rank this is. */
struct trace trace_begin(const char *target);

/* Note the time; a second time at the same point is ignored. */
void trace_note(struct trace *trace, enum trace_point point);

/* Whether text has the form ADDRESS[,ADDRESS…]:PORT/TOKEN. */
bool trace_target_valid(const char *text);

/* Never waits and never fails: that nobody listens is no concern of the rank's. */
void trace_send(const struct trace *trace);

#endif
