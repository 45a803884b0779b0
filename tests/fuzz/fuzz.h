/* What the harnesses share: libFuzzer's entry, files in memory, and memory that an iteration leaves behind.
 */
#ifndef CHLAUNCH_FUZZ_H
#define CHLAUNCH_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The runtime does not free what is thrown away when the command starts. An iteration begins with the first,
 * and ends with the second, which frees what was allocated since. */
void memory_watch(void);
void memory_release(void);

/* A file in memory with this content, the same one for the same number; its path. */
const char *file_make(unsigned number, const uint8_t *data, size_t size);

/* The bytes as a text that ends where its memory ends. */
char *text_make(const uint8_t *data, size_t size);

/* Take a byte, or bytes up to a NUL character, from the front of what is left. */
struct input {
	const uint8_t *data;
	size_t size;
};
uint8_t input_byte(struct input *input);
char *input_word(struct input *input);

/* The property does not hold: end as a crash does. */
#define CHECK(property) ((property) ? (void)0 : check_failed(#property, __FILE__, __LINE__))
void check_failed(const char *property, const char *file, int line) __attribute__((noreturn));

#endif
