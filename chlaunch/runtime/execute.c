/* Become the command, or find out why the kernel refused: execve(2) has one errno for many causes. */
#include "execute.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cleanup.h"

extern char **environ;

#if defined(__x86_64__)
enum { MACHINE = EM_X86_64 };
#elif defined(__aarch64__)
enum { MACHINE = EM_AARCH64 };
#elif defined(__powerpc64__)
enum { MACHINE = EM_PPC64 };
#elif defined(__s390x__)
enum { MACHINE = EM_S390 };
#elif defined(__riscv)
enum { MACHINE = EM_RISCV };
#else
enum { MACHINE = EM_NONE };
#endif

static const char *machine_name(unsigned machine)
{
	static const struct {
		unsigned machine;
		const char *name;
	} names[] = {
		{EM_386, "i386"},      {EM_X86_64, "x86-64"}, {EM_ARM, "arm"},	     {EM_AARCH64, "arm64"},
		{EM_PPC64, "ppc64le"}, {EM_S390, "s390x"},    {EM_RISCV, "riscv64"},
	};

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (names[i].machine == machine)
			return names[i].name;
	return "an unknown machine";
}

/* The program interpreter (PT_INTERP) of a 64-bit ELF file, or "". */
static void elf_interpreter(int fd, const Elf64_Ehdr *header, char *interpreter, size_t size)
{
	Elf64_Phdr program;
	ssize_t length;

	interpreter[0] = '\0';
	for (unsigned i = 0; i < header->e_phnum; i++) {
		const off_t offset = (off_t)(header->e_phoff + (Elf64_Off)i * sizeof program);

		if (pread(fd, &program, sizeof program, offset) != sizeof program)
			return;
		if (program.p_type != PT_INTERP)
			continue;
		length = pread(fd, interpreter, size - 1, (off_t)program.p_offset);
		interpreter[length < 0 ? 0 : length] = '\0';
		return;
	}
}

/* The interpreter of a script's #! line, or "". */
static void script_interpreter(const char *start, char *interpreter, size_t size)
{
	const char *word = start + 2 + strspn(start + 2, " \t");

	snprintf(interpreter, size, "%.*s", (int)strcspn(word, " \t\r\n"), word);
}

static int explain_content(const char *path, int error, struct failure *failure)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	char interpreter[PATH_MAX] = "";
	union {
		char text[256];
		Elf64_Ehdr elf;
	} start = {.text = ""};

	if (fd < 0 || pread(fd, start.text, sizeof start.text - 1, 0) < 4)
		return FAIL(failure, FAILURE_COMMAND, error, "%s", path);
	if (memcmp(start.text, ELFMAG, SELFMAG) == 0) {
		if (MACHINE != EM_NONE && start.elf.e_machine != MACHINE)
			return FAIL(failure, FAILURE_COMMAND_ARCHITECTURE, error, "%s: for %s, this is %s",
				    path, machine_name(start.elf.e_machine), machine_name(MACHINE));
		elf_interpreter(fd, &start.elf, interpreter, sizeof interpreter);
	} else if (start.text[0] == '#' && start.text[1] == '!') {
		script_interpreter(start.text, interpreter, sizeof interpreter);
	} else if (error == ENOEXEC) {
		return FAIL(failure, FAILURE_COMMAND_FORMAT, error, "%s", path);
	}
	if (interpreter[0] != '\0' && access(interpreter, X_OK) < 0)
		return FAIL(failure, FAILURE_COMMAND_INTERPRETER, error, "%s needs %s", path, interpreter);
	return FAIL(failure, FAILURE_COMMAND, error, "%s", path);
}

static int explain(const char *path, int error, struct failure *failure)
{
	struct statvfs system;
	struct stat status;

	if (stat(path, &status) < 0)
		return FAIL(failure, errno == ENOENT ? FAILURE_COMMAND_MISSING : FAILURE_COMMAND, errno, "%s",
			    path);
	if (S_ISDIR(status.st_mode))
		return FAIL(failure, FAILURE_COMMAND_IS_DIRECTORY, error, "%s", path);
	if (error == EACCES && statvfs(path, &system) == 0 && (system.f_flag & ST_NOEXEC))
		return FAIL(failure, FAILURE_COMMAND_NOEXEC, error, "%s", path);
	if (error == EACCES && access(path, X_OK) < 0)
		return FAIL(failure, FAILURE_COMMAND_MODE, error, "%s: mode %04o", path,
			    status.st_mode & 07777);
	return explain_content(path, error, failure);
}

/* A text without #! is the shell's, as execvp(3) and POSIX have it; a file with NUL bytes is not. */
static void execute_script(const char *path, char **command)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	char start[128];
	const ssize_t length = fd < 0 ? -1 : read(fd, start, sizeof start);
	size_t count = 0;

	if (length < 0 || memchr(start, '\0', (size_t)length) != NULL)
		return;
	while (command[count] != NULL)
		count++;
	char **words = calloc(count + 2, sizeof *words);
	if (words == NULL)
		return;
	words[0] = (char *)"/bin/sh";
	words[1] = (char *)path;
	memcpy(words + 2, command + 1, count * sizeof *words);
	execve(words[0], words, environ);
	free(words);
}

static int execute_path(const char *path, char **command)
{
	execve(path, command, environ);
	if (errno == ENOEXEC) {
		execute_script(path, command);
		errno = ENOEXEC;
	}
	return errno;
}

int execute(char **command, struct failure *failure)
{
	const char *search = getenv("PATH"), *name = command[0];
	char path[PATH_MAX], refused[PATH_MAX] = "";
	int error, refusal = 0;

	if (strchr(name, '/') != NULL || name[0] == '\0') {
		error = execute_path(name, command);
		return explain(name, error, failure);
	}
	while (search != NULL && *search != '\0') {
		const size_t length = strcspn(search, ":");

		snprintf(path, sizeof path, "%.*s/%s", (int)length, length == 0 ? "." : search, name);
		error = execute_path(path, command);
		if (refused[0] == '\0' &&
		    access(path, F_OK) == 0) { /* there, but refused: keep the first reason */
			strcpy(refused, path);
			refusal = error;
		}
		search += length + (search[length] == ':');
	}
	if (refused[0] != '\0')
		return explain(refused, refusal, failure);
	return FAIL(failure, FAILURE_COMMAND_MISSING, ENOENT, "%s", name);
}
