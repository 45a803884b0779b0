/* Ask the planner, a process of its own, what srun shall become. */
#ifndef CHLAUNCH_SPANK_PLANNER_H
#define CHLAUNCH_SPANK_PLANNER_H

#include <signal.h>
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

/* How srun catches the signals that ask it to end; zeros where it does not. */
struct endings {
	struct sigaction caught[4];
};

/* Let srun catch them as before, as it goes on as it is. */
void endings_restore(const struct endings *endings);

/*
 * Run the planner with the words and the environment of this srun; command_at as in cli/srun.py. Returns 0,
 * or the exit code for srun after the reason was said. Signals in endings end srun from then on.
 */
int planner_ask(const struct planner *planner, const char *srun, char *const words[], int command_at,
		char *const environment[], struct endings *endings, struct answer *answer);

#endif
