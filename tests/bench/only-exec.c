/* only-exec PROGRAM [ARG…]: what a static program must cost that becomes another one. */
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc < 2)
		return 64;
	execv(argv[1], argv + 1);
	perror(argv[1]);
	return 1;
}
