/* deny ERRNO NUMBER[:FLAGS][,…] COMMAND [ARG…]: run COMMAND with those system calls failing, as on an older
 * kernel; with FLAGS only where the fourth argument, which is mount(2)'s flags, is that. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { RULES_MOST = 32, RULE_SIZE = 5 };

#define LOAD(field)                                                                                          \
	(struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define SKIP_UNLESS(value, count) (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, count)
#define RETURN(value)		  (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, value)

int main(int argc, char **argv)
{
	struct sock_filter code[RULES_MOST * RULE_SIZE + 1];
	struct sock_fprog program = {.len = 0, .filter = code};
	unsigned error;

	if (argc < 4)
		return 64;
	error = (unsigned)atoi(argv[1]);
	for (char *word = strtok(argv[2], ","); word != NULL && program.len < RULES_MOST * RULE_SIZE;
	     word = strtok(NULL, ",")) {
		const char *flags = strchr(word, ':');

		code[program.len++] = LOAD(nr);
		code[program.len++] = SKIP_UNLESS((unsigned)atoi(word), flags == NULL ? 1 : 3);
		if (flags != NULL) {
			code[program.len++] = LOAD(args[3]); /* its lower half, on the machines we know */
			code[program.len++] = SKIP_UNLESS((unsigned)atoi(flags + 1), 1);
		}
		code[program.len++] = RETURN(SECCOMP_RET_ERRNO | error);
	}
	code[program.len++] = RETURN(SECCOMP_RET_ALLOW);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) {
		perror("deny");
		return 1;
	}
	execv(argv[3], argv + 3);
	perror(argv[3]);
	return 1;
}
