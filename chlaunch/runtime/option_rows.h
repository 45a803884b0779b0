/* Every option of ch-run, a row each, as argp(3) wants them. */
#ifndef CHLAUNCH_OPTION_ROWS_H
#define CHLAUNCH_OPTION_ROWS_H

#include <argp.h>

enum option_key { /* options without a short name */
		  OPTION_BIND_LAYERS = 1000,
		  OPTION_BIND_RO,
		  OPTION_BIND_TRY,
		  OPTION_CDI_DIRS,
		  OPTION_CDI_RESOLVED,
		  OPTION_CD_TRY,
		  OPTION_CLEAN_JOB,
		  OPTION_COLOR,
		  OPTION_DEVICE,
		  OPTION_ENV,
		  OPTION_ENV_DEFAULT,
		  OPTION_ENV_NO_EXPAND,
		  OPTION_ERRORS,
		  OPTION_FEATURE,
		  OPTION_FUSE_SINGLE,
		  OPTION_HOME,
		  OPTION_JOIN_CT,
		  OPTION_JOIN_PID,
		  OPTION_JOIN_TAG,
		  OPTION_JSON,
		  OPTION_LD_CACHE,
		  OPTION_NO_PASSWD,
		  OPTION_NO_TMP,
		  OPTION_READ_PEER,
		  OPTION_SECCOMP,
		  OPTION_SET_ENV,
		  OPTION_SET_ENV0,
		  OPTION_TMPFS,
		  OPTION_TRACE,
		  OPTION_UNSAFE,
		  OPTION_UNSET_ENV,
		  OPTION_WRITE_FAKE_SCOPE,
		  OPTION_WRITE_TO,
};

extern const struct argp_option option_rows[];

#endif
