/* storm COUNT COMMAND [ARG…]: start COUNT copies at once, wait for all, print the nanoseconds that took. */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argc, char **argv)
{
	const int count = argc > 2 ? atoi(argv[1]) : 0;
	const long long start = now();
	int status, failed = 0;
	pid_t pid;

	if (count < 1) {
		fprintf(stderr, "usage: storm COUNT COMMAND [ARG...]\n");
		return 64;
	}
	for (int i = 0; i < count; i++) {
		const int error = posix_spawn(&pid, argv[2], NULL, NULL, argv + 2, environ);

		if (error != 0) {
			fprintf(stderr, "storm: %s: %s\n", argv[2], strerror(error));
			return 1;
		}
	}
	while (wait(&status) > 0)
		failed += status != 0;
	printf("%lld\n", now() - start);
	if (failed > 0)
		fprintf(stderr, "storm: %d of %d failed\n", failed, count);
	return failed > 0;
}
