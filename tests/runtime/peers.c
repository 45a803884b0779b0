/*
 * peers DIRECTORY NAME PEER: two of these read each other's memory, as MPI libraries do for large messages.
 * Each says where its buffer is in DIRECTORY/NAME, reads PEER's, and stays until PEER is done.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SIZE = 1 << 20, TRIES = 10000, WAIT_MICROSECONDS = 1000 };

static char own[SIZE], theirs[SIZE];

static bool file_wait(const char *path)
{
	struct stat status;

	for (int i = 0; i < TRIES; i++) {
		if (stat(path, &status) == 0)
			return true;
		usleep(WAIT_MICROSECONDS);
	}
	return false;
}

static void file_make(const char *path, const char *text)
{
	char temporary[512];
	FILE *file;

	snprintf(temporary, sizeof temporary, "%s.new", path);
	file = fopen(temporary, "w");
	if (file == NULL || fputs(text, file) < 0 || fclose(file) != 0 || rename(temporary, path) < 0) {
		perror(path);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	char path[256], text[256];
	void *address;
	FILE *file;
	pid_t pid;

	if (argc != 4 || chdir(argv[1]) < 0)
		return 64;
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); /* Yama */
	memset(own, argv[2][0], SIZE);
	snprintf(text, sizeof text, "%d %p\n", getpid(), (void *)own);
	file_make(argv[2], text);
	if (!file_wait(argv[3]) || (file = fopen(argv[3], "r")) == NULL ||
	    fscanf(file, "%d %p", &pid, &address) != 2) {
		printf("%s: %s did not come\n", argv[2], argv[3]);
		return 1;
	}
	const ssize_t length =
		process_vm_readv(pid, &(struct iovec){theirs, SIZE}, 1, &(struct iovec){address, SIZE}, 1, 0);
	if (length == SIZE && theirs[0] == argv[3][0] && theirs[SIZE - 1] == argv[3][0])
		printf("%s read %s\n", argv[2], argv[3]);
	else
		printf("%s: Read %zd, expected %d, errno = %d\n", argv[2], length, SIZE, errno);
	snprintf(path, sizeof path, "%s.done", argv[2]);
	file_make(path, "");
	snprintf(path, sizeof path, "%s.done", argv[3]);
	return file_wait(path) ? 0 : 1;
}
