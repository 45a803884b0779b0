/* Who the user is inside: passwd and group lines from the environment, without a name service look-up. */
#ifndef CHLAUNCH_IDENTITY_H
#define CHLAUNCH_IDENTITY_H

#include <stddef.h>

#include "container.h"

enum { IDENTITY_SIZE = 8192 };

/* $USER, else $LOGNAME, else "user". */
const char *identity_user(void);

void identity_passwd(const struct container *container, char *text, size_t size);
void identity_group(const struct container *container, char *text, size_t size);

#endif
