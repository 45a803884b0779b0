/* The plugin's options, one row each; written by table.py from chlaunch/launch/options.py: make docs. */
#ifndef CHLAUNCH_SPANK_OPTIONS_H
#define CHLAUNCH_SPANK_OPTIONS_H

/* OFF: its flag's other value. LIST: may be repeated. */
enum kind { FLAG, OFF, VALUE, OPTIONAL, LIST };

/* variable: the twin in the environment. value, help: as srun --help has them. */
struct row {
	const char *name;
	enum kind kind;
	const char *variable;
	const char *value;
	const char *help;
};

/* clang-format off */
static const struct row rows[] = {
	{"ch-image", VALUE, "CHLAUNCH_IMAGE", "IMAGE", "run the tasks in this image; none: on the host"},
	{"ch-mpi", VALUE, "CHLAUNCH_MPI", "TYPE", "wire-up: srun's --mpi=TYPE; auto: what fits the image; none: not an MPI program"},
	{"ch-join", FLAG, "CHLAUNCH_JOIN", NULL, "let the ranks of a node share one container (default under srun and mpirun)"},
	{"ch-no-join", OFF, "CHLAUNCH_JOIN", NULL, "not --ch-join"},
	{"ch-join-tag", VALUE, "CHLAUNCH_JOIN_TAG", "TAG", "the name by which ranks find each other, if the launcher's is not it"},
	{"ch-bind", LIST, "CHLAUNCH_BIND", "SRC[:DST]", "show SRC of the host at DST in the container (default: the same path)"},
	{"ch-bind-ro", LIST, "CHLAUNCH_BIND_RO", "SRC[:DST]", "the same, read-only"},
	{"ch-bind-try", LIST, "CHLAUNCH_BIND_TRY", "SRC[:DST]", "the same as bind, left out where SRC does not exist; $NAME at its start is a variable of the node"},
	{"ch-cd", VALUE, "CHLAUNCH_CD", "DIR", "start in DIR of the container, instead of the working directory"},
	{"ch-home", FLAG, "CHLAUNCH_HOME", NULL, "--ch-home: $HOME at /home/$USER; --ch-no-home: nowhere; default: at its own path"},
	{"ch-no-home", OFF, "CHLAUNCH_HOME", NULL, "not --ch-home"},
	{"ch-set-env", LIST, "CHLAUNCH_SET_ENV", "NAME=VALUE|FILE", "set a variable; $X items of VALUE are expanded on the node"},
	{"ch-set-env0", LIST, "CHLAUNCH_SET_ENV0", "NAME=VALUE|FILE", "the same, FILE with NUL characters in place of line ends"},
	{"ch-env", LIST, "CHLAUNCH_ENV", "NAME=VALUE", "set a variable to VALUE as it is"},
	{"ch-unset-env", LIST, "CHLAUNCH_UNSET_ENV", "GLOB", "remove the variables whose names match"},
	{"ch-env-default", LIST, "CHLAUNCH_ENV_DEFAULT", "NAME=VALUE", "set a variable unless it is set"},
	{"ch-uid", VALUE, "CHLAUNCH_UID", "UID", "user id in the container"},
	{"ch-gid", VALUE, "CHLAUNCH_GID", "GID", "group id in the container"},
	{"ch-write", FLAG, "CHLAUNCH_WRITE", NULL, "let the image be written"},
	{"ch-write-fake", OPTIONAL, "CHLAUNCH_WRITE_FAKE", "SIZE", "let the image seem writable: what is written goes to memory (no SIZE: up to 12% of it)"},
	{"ch-write-fake-scope", VALUE, "CHLAUNCH_WRITE_FAKE_SCOPE", "node|rank", "who sees what is written: all ranks of a node (default), or each rank its own"},
	{"ch-private-tmp", FLAG, "CHLAUNCH_PRIVATE_TMP", NULL, "an empty /tmp, in place of the host's"},
	{"ch-no-passwd", FLAG, "CHLAUNCH_NO_PASSWD", NULL, "keep the image's own /etc/passwd and /etc/group"},
	{"ch-seccomp", FLAG, "CHLAUNCH_SECCOMP", NULL, "privileged system calls succeed without doing anything (for package managers)"},
	{"ch-storage", VALUE, "CHLAUNCH_STORAGE", "DIR", "where images have names (default: $CH_IMAGE_STORAGE, else /var/tmp/$USER.ch)"},
	{"ch-cache-dir", VALUE, "CHLAUNCH_CACHE_DIR", "DIR", "where all nodes find images that were fetched, besides $XDG_CACHE_HOME/chlaunch/fetched"},
	{"ch-cache-owner", VALUE, "CHLAUNCH_CACHE_OWNER", "USER", "who else than root and you may own what is there"},
	{"ch-stage", OPTIONAL, "CHLAUNCH_STAGE", "DIR", "copy the image file to the nodes of the job first, into DIR (no DIR: /tmp)"},
	{"ch-fuse-single", FLAG, "CHLAUNCH_FUSE_SINGLE", NULL, "serve an image file with one thread"},
	{"ch-device", LIST, "CHLAUNCH_DEVICE", "VENDOR/CLASS=NAME", "let programs use a CDI device of this host"},
	{"ch-cdi", LIST, "CHLAUNCH_CDI", "KIND|FILE|all", "every device of a CDI kind, of a CDI file, or of all files"},
	{"ch-cdi-dirs", VALUE, "CHLAUNCH_CDI_DIRS", "DIR[:DIR...]", "where CDI files are (default: /etc/cdi:/var/run/cdi)"},
	{"ch-ld-cache", LIST, "CHLAUNCH_LD_CACHE", "DIR", "let programs find the libraries in DIR of the container"},
	{"ch-verbose", FLAG, "CHLAUNCH_VERBOSE", NULL, "let ch-run say what it does"},
	{"ch-site", VALUE, "CHLAUNCH_SITE", "FILE", "the site's configuration, or one of ours, such as cray-ex, instead of /etc/chlaunch/site.toml"},
	{"ch-dry-run", FLAG, "CHLAUNCH_DRY_RUN", NULL, "print the command line that would be run, and stop"},
	{"ch-explain", FLAG, "CHLAUNCH_EXPLAIN", NULL, "say each decision, its reason and where that was said"},
	{"ch-json", FLAG, "CHLAUNCH_JSON", NULL, "explain as one JSON object (with --ch-dry-run: to stdout, in place of the line)"},
	{"ch-debug", FLAG, "CHLAUNCH_DEBUG", NULL, "where something fails, show where in the program"},
	{"ch-allow-root", FLAG, "CHLAUNCH_ALLOW_ROOT", NULL, "let root do this too"},
};

/* Globs: see HOST_COMMANDS in chlaunch/launch/srun_words.py. */
static const char *const host_commands[] = {"ch-run", "orted", "prted", "hydra_*proxy", "pmi_proxy"};
/* clang-format on */

#endif
