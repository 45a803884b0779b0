/* What a rendezvous is called: who meets there, and whose container is the same. */
#ifndef CHLAUNCH_RENDEZVOUS_NAME_H
#define CHLAUNCH_RENDEZVOUS_NAME_H

#include <stdint.h>

#include "container.h"

/* Name of the file for those who are to meet: --join-tag's, else after the innermost launcher. */
int rendezvous_name(const struct container *container, char *name, size_t size, struct failure *failure);

/* A hash that is equal where the mount namespace would be. */
uint64_t rendezvous_container(const struct container *container);

#endif
