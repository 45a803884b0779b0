/* What a Slurm job of the user left on this node when it ended: removed. */
#ifndef CHLAUNCH_CLEAN_H
#define CHLAUNCH_CLEAN_H

#include "failure.h"

/*
 * End what still runs of the job's containers (keepers, servers of image files, ranks on record) and remove
 * its rendezvous files. Nothing of another job or another user is touched; that there is nothing is no
 * failure.
 */
int job_clean(unsigned job, struct failure *failure);

#endif
