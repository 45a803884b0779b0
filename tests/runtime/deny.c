/* deny ERRNO NUMBER[,NUMBER…] COMMAND [ARG…]: run COMMAND with those system calls failing, as on an older
 * kernel. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { CALLS_MOST = 32 };

int main(int argc, char **argv)
{
	struct sock_filter code[2 + 2 * CALLS_MOST];
	struct sock_fprog program = {.len = 0, .filter = code};
	unsigned error;

	if (argc < 4)
		return 64;
	error = (unsigned)atoi(argv[1]);
	code[program.len++] =
		(struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (char *word = strtok(argv[2], ","); word != NULL && program.len < CALLS_MOST;
	     word = strtok(NULL, ",")) {
		code[program.len++] =
			(struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)atoi(word), 0, 1);
		code[program.len++] =
			(struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error);
	}
	code[program.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) {
		perror("deny");
		return 1;
	}
	execv(argv[3], argv + 3);
	perror(argv[3]);
	return 1;
}
