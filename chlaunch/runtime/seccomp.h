/* Root emulation: the calls that only root may make succeed, and nothing happens. */
#ifndef CHLAUNCH_SECCOMP_H
#define CHLAUNCH_SECCOMP_H

#include "failure.h"

/* For this process and all it will start or become, for good. no_new_privs must be set. */
int seccomp_fake_root(struct failure *failure);

#endif
