/* Ask the planner, a process of its own, what srun shall become. */
#ifndef CHLAUNCH_SPANK_PLANNER_H
#define CHLAUNCH_SPANK_PLANNER_H

#include <stddef.h>

/* As plugstack.conf has it. seconds: for how long the planner may be silent. */
struct planner {
	const char *path;
	long seconds;
};

/* The planner's words, one after the other with a NUL after each; text is NULL if it has none. */
struct answer {
	char *text;
	size_t length;
};

/*
 * Run the planner with the words and the environment of this srun; command_at as in cli/srun.py. Returns 0,
 * or the exit code for srun after the reason was said.
 */
int planner_ask(const struct planner *planner, const char *srun, char *const words[], int command_at,
		char *const environment[], struct answer *answer);

#endif
