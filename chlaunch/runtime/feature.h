/* What this ch-run can do, by names that scripts ask for. */
#ifndef CHLAUNCH_FEATURE_H
#define CHLAUNCH_FEATURE_H

#include "failure.h"

/* Print all that are here, in double quotes. */
void features_print(const char *separator);

/* 0 if the feature is here. */
int feature_check(const char *name, struct failure *failure);

#endif
