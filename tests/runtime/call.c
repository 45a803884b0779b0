/* call WORD…: make system calls and print what each returns, -errno for an error. A WORD is
 *     ABI,NUMBER[,ARGUMENT…]   ABI is native or i386; an ARGUMENT is a number, a /path, or bytes: x and hex
 *     status                   print who we are and what we may do, as /proc/self/status has it
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ARGUMENTS_MOST = 5 };

#if defined(__x86_64__)
/* The 32-bit entry of a 64-bit kernel; older ones do not keep r8 to r11. */
static long call_i386(long number, const long *arguments)
{
	int result;

	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(number), "b"(arguments[0]), "c"(arguments[1]), "d"(arguments[2]),
			   "S"(arguments[3]), "D"(arguments[4])
			 : "r8", "r9", "r10", "r11", "memory");
	return result;
}
#else
static long call_i386(long number, const long *arguments)
{
	(void)number, (void)arguments;
	return -ENOSYS;
}
#endif

static long call_native(long number, const long *arguments)
{
	const long result =
		syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4]);

	return result == -1 ? -errno : result;
}

/* Bytes where a 32-bit pointer reaches: a static program's data are below 2 GiB. */
static long argument_parse(const char *text)
{
	static unsigned char memory[4096];
	static size_t used;
	unsigned char *start = memory + used;

	if (text[0] != '/' && text[0] != 'x')
		return strtol(text, NULL, 0);
	if (used + strlen(text) + 1 > sizeof memory || (uintptr_t)memory > INT32_MAX)
		exit(70);
	if (text[0] == '/') {
		strcpy((char *)start, text);
		used += strlen(text) + 1;
	} else {
		for (text++; text[0] != '\0'; text += 2)
			sscanf(text, "%2hhx", &memory[used++]);
	}
	used = (used + 7) / 8 * 8;
	return (long)start;
}

static long call(char *word)
{
	long arguments[ARGUMENTS_MOST] = {0}, number;
	const char *abi = strtok(word, ","), *text = strtok(NULL, ",");

	if (abi == NULL || text == NULL)
		exit(64);
	number = argument_parse(text);
	for (int i = 0; i < ARGUMENTS_MOST && (text = strtok(NULL, ",")) != NULL; i++)
		arguments[i] = argument_parse(text);
	return strcmp(abi, "i386") == 0 ? call_i386(number, arguments) : call_native(number, arguments);
}

static void status_print(void)
{
	static const char *const names[] = {"Uid:", "Gid:", "Groups:", "CapPrm:", "CapEff:"};
	FILE *file = fopen("/proc/self/status", "r");
	char line[1024];

	while (file != NULL && fgets(line, sizeof line, file) != NULL)
		for (size_t i = 0; i < sizeof names / sizeof *names; i++)
			if (strncmp(line, names[i], strlen(names[i])) == 0)
				fputs(line, stdout);
	if (file != NULL)
		fclose(file);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "status") == 0)
			status_print();
		else
			printf("%ld\n", call(argv[i]));
	return 0;
}
