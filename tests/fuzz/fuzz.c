/* What the harnesses share. Calls of the runtime to allocate memory come here by the linker's --wrap. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES = 4, BLOCKS_MOST = 1 << 16 };

/* The linker's names (ld(1), --wrap). */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_reallocarray(void *block, size_t count, size_t size);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t size);
void __real_free(void *block);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_reallocarray(void *block, size_t count, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t size);
void __wrap_free(void *block);

static void *blocks[BLOCKS_MOST];
static size_t block_count;
static bool watched;

void check_failed(const char *property, const char *file, int line)
{
	fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, property);
	abort();
}

static void *block_add(void *block)
{
	if (block == NULL || !watched)
		return block;
	CHECK(block_count < BLOCKS_MOST);
	blocks[block_count++] = block;
	return block;
}

/* What libc allocated itself is not in the list. */
static void block_forget(const void *block)
{
	for (size_t i = block_count; i-- > 0;)
		if (blocks[i] == block) {
			blocks[i] = blocks[--block_count];
			return;
		}
}

void memory_watch(void)
{
	watched = true;
}

void memory_release(void)
{
	watched = false;
	while (block_count > 0)
		__real_free(blocks[--block_count]);
}

void *__wrap_malloc(size_t size)
{
	return block_add(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
	return block_add(__real_calloc(count, size));
}

void *__wrap_reallocarray(void *block, size_t count, size_t size)
{
	void *grown = __real_reallocarray(block, count, size);

	if (grown != NULL)
		block_forget(block);
	return block_add(grown);
}

char *__wrap_strdup(const char *text)
{
	return block_add(__real_strdup(text));
}

char *__wrap_strndup(const char *text, size_t size)
{
	return block_add(__real_strndup(text, size));
}

void __wrap_free(void *block)
{
	block_forget(block);
	__real_free(block);
}

const char *file_make(unsigned number, const uint8_t *data, size_t size)
{
	static int fds[FILES] = {-1, -1, -1, -1};
	static char paths[FILES][32];

	CHECK(number < FILES);
	if (fds[number] < 0) {
		fds[number] = memfd_create("fuzz", MFD_CLOEXEC);
		CHECK(fds[number] >= 0 && fchmod(fds[number], 0755) == 0);
		snprintf(paths[number], sizeof paths[number], "/proc/self/fd/%d", fds[number]);
	}
	CHECK(ftruncate(fds[number], 0) == 0 && pwrite(fds[number], data, size, 0) == (ssize_t)size);
	return paths[number];
}

char *text_make(const uint8_t *data, size_t size)
{
	char *text = __wrap_malloc(size + 1);

	CHECK(text != NULL);
	memcpy(text, data, size);
	text[size] = '\0';
	return text;
}

uint8_t input_byte(struct input *input)
{
	if (input->size == 0)
		return 0;
	input->size--;
	return *input->data++;
}

char *input_word(struct input *input)
{
	const uint8_t *end = input->size == 0 ? NULL : memchr(input->data, '\0', input->size);
	const size_t length = end == NULL ? input->size : (size_t)(end - input->data);
	char *word = text_make(input->size == 0 ? (const uint8_t *)"" : input->data, length);
	const size_t taken = length + (end != NULL);

	input->data += taken;
	input->size -= taken;
	return word;
}
