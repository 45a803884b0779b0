/* The rendezvous file itself: its place, its lock, its wait. What is in it is rendezvous.c's. */
#ifndef CHLAUNCH_RENDEZVOUS_FILE_H
#define CHLAUNCH_RENDEZVOUS_FILE_H

#include <stddef.h>

#include "failure.h"

enum { PLACES = 3 };

/* Our own directory at place number (0 is tried first), made if make is set; -1 where there is none we may
 * trust. */
int place_open(int number, int make, struct failure *failure);

/* Open or make the file and hold its lock: *directory and *lock. */
int file_lock(const char *name, int *directory, int *lock, struct failure *failure);

/* A file of the same name at the next place from *place on that has it, or takes it if make is set; -1. */
int file_elsewhere(const char *name, int make, int *place);

/* Lock without waiting, for a file that may be dead: its descriptor, or -1. */
int file_lock_idle(int directory, const char *name);

#endif
