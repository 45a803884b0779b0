/* Why the kernel refused to execute a file: execve(2) has one errno for many causes. */
#include "explain.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cleanup.h"

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

/* Is a kernel's emulator for the machine registered, and would it be found? binfmt_misc.rst */
static bool emulator_is_absent(unsigned machine)
{
	static const struct {
		unsigned machine;
		const char *name;
	} names[] = {{EM_386, "i386"},	      {EM_X86_64, "x86_64"}, {EM_ARM, "arm"},
		     {EM_AARCH64, "aarch64"}, {EM_PPC64, "ppc64le"}, {EM_S390, "s390x"},
		     {EM_RISCV, "riscv64"}};
	char path[64], text[1024], interpreter[256];
	const char *at;
	ssize_t length;

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		if (names[i].machine != machine)
			continue;
		snprintf(path, sizeof path, "/proc/sys/fs/binfmt_misc/qemu-%s", names[i].name);
		CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (length = read(fd, text, sizeof text - 1)) <= 0)
			return false;
		text[length] = '\0';
		at = strstr(text, "interpreter ");
		return strncmp(text, "enabled", 7) == 0 && at != NULL &&
		       sscanf(at, "interpreter %255s", interpreter) == 1 && access(interpreter, X_OK) < 0;
	}
	return false;
}

static int explain_machine(const char *path, unsigned machine, int error, struct failure *failure)
{
	return FAIL(failure,
		    emulator_is_absent(machine) ? FAILURE_COMMAND_BINFMT : FAILURE_COMMAND_ARCHITECTURE,
		    error, "%s: for %s, this is %s", path, machine_name(machine), machine_name(MACHINE));
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
			return explain_machine(path, start.elf.e_machine, error, failure);
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

/* Several words of one directory: so looks what the host's shell makes of "DIRECTORY/..." with a wildcard. */
static bool is_wildcard(const char *path, char *const *command)
{
	const char *slash = strrchr(path, '/');
	const size_t length = slash == NULL ? 0 : (size_t)(slash - path) + 1;

	return length > 0 && command[0] != NULL && command[1] != NULL &&
	       strncmp(command[1], path, length) == 0 && strchr(command[1] + length, '/') == NULL;
}

int explain(const char *path, char *const *command, int error, struct failure *failure)
{
	struct statvfs system;
	struct stat status;

	if (error == E2BIG)
		return FAIL(failure, FAILURE_COMMAND_TOO_BIG, error, "%s", path);
	if (stat(path, &status) < 0) {
		if (errno != ENOENT && errno != ENOTDIR)
			return FAIL(failure, FAILURE_COMMAND, errno, "%s", path);
		return FAIL(failure,
			    is_wildcard(path, command) ? FAILURE_COMMAND_WILDCARD : FAILURE_COMMAND_MISSING,
			    errno, "%s", path);
	}
	if (S_ISDIR(status.st_mode))
		return FAIL(failure, FAILURE_COMMAND_IS_DIRECTORY, error, "%s", path);
	if (error == EACCES && statvfs(path, &system) == 0 && (system.f_flag & ST_NOEXEC))
		return FAIL(failure, FAILURE_COMMAND_NOEXEC, error, "%s", path);
	if (error == EACCES && access(path, X_OK) < 0)
		return FAIL(failure, FAILURE_COMMAND_MODE, error, "%s: mode %04o", path,
			    status.st_mode & 07777);
	if (!S_ISREG(status.st_mode)) /* to open a FIFO would wait, and devices may act on it */
		return FAIL(failure, FAILURE_COMMAND, error, "%s", path);
	return explain_content(path, error, failure);
}
