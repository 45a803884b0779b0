/*
 * driver MUTATIONS FILE…: what libFuzzer's main does, for compilers that have none: run the harness over
 * files, then over MUTATIONS changed ones. No coverage guides it, and no chance: the same files always give
 * the same inputs.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuzz.h"

enum { SIZE_MOST = 16384, CHANGES_MOST = 6 };

struct sample {
	uint8_t bytes[SIZE_MOST];
	size_t size;
};

static uint64_t state = 0x9e3779b97f4a7c15;
static const struct sample *running;

/* xorshift64; below `most` */
static size_t chance(size_t most)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return most == 0 ? 0 : (size_t)(state % most);
}

static void sample_read(struct sample *sample, const char *path)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	const ssize_t length = fd < 0 ? -1 : read(fd, sample->bytes, SIZE_MOST);

	if (length < 0) {
		perror(path);
		exit(EXIT_FAILURE);
	}
	sample->size = (size_t)length;
	close(fd);
}

/* Replace bytes at `at` (`old` of them) by others, as far as there is room. */
static void bytes_replace(struct sample *sample, size_t at, size_t old, const uint8_t *bytes, size_t size)
{
	uint8_t copy[SIZE_MOST];

	if (sample->size - old + size > SIZE_MOST)
		return;
	if (size > 0)
		memcpy(copy, bytes, size); /* they may be the sample's own */
	memmove(sample->bytes + at + size, sample->bytes + at + old, sample->size - at - old);
	memcpy(sample->bytes + at, copy, size);
	sample->size = sample->size - old + size;
}

/* A number as headers have them: 1, 2, 4 or 8 bytes, near zero, a power of two, or the end of its type. */
static void number_put(struct sample *sample)
{
	static const uint64_t numbers[] = {0,	     1,		2,	    3,	       127,
					   128,	     255,	256,	    32767,     65535,
					   1U << 20, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX};
	uint64_t number = numbers[chance(sizeof numbers / sizeof *numbers)] + chance(3) - 1;
	const size_t width = (size_t)1 << chance(4), at = chance(sample->size);
	uint8_t bytes[8];

	for (size_t i = 0; i < width; i++)
		bytes[i] = (uint8_t)(number >> 8 * i);
	if (chance(4) == 0)
		for (size_t i = 0; i < width / 2; i++) {
			const uint8_t byte = bytes[i];

			bytes[i] = bytes[width - 1 - i];
			bytes[width - 1 - i] = byte;
		}
	bytes_replace(sample, at, width < sample->size - at ? width : sample->size - at, bytes, width);
}

static void change(struct sample *sample, const struct sample *other)
{
	static const char letters[] = "\n\0=$:'/-.,%a0 \\\xff";
	const size_t at = chance(sample->size), rest = sample->size - at, from = chance(other->size);
	const uint8_t letter = (uint8_t)letters[chance(sizeof letters)];

	switch (chance(7)) {
	case 0:
		if (rest > 0)
			sample->bytes[at] ^= (uint8_t)(1U << chance(8));
		break;
	case 1:
		bytes_replace(sample, at, rest > 0, &letter, 1);
		break;
	case 2:
		bytes_replace(sample, at, 0, &letter, 1);
		break;
	case 3:
		bytes_replace(sample, at, chance(rest + 1), NULL, 0);
		break;
	case 4: /* a part of it, or of another, twice */
		bytes_replace(sample, at, 0, other->bytes + from, chance(other->size - from + 1));
		break;
	case 5:
		sample->size = at;
		break;
	default:
		number_put(sample);
	}
}

static void run(const struct sample *sample)
{
	void *exact; /* so that reading behind it is noticed */

	if (posix_memalign(&exact, sizeof exact, sample->size == 0 ? 1 : sample->size) != 0)
		abort();
	memcpy(exact, sample->bytes, sample->size);
	running = sample;
	LLVMFuzzerTestOneInput(exact, sample->size);
	running = NULL;
	free(exact);
}

/* Sanitizers and CHECK end by abort(3). The input that led to it is what one wants to know. */
static void aborted(int number)
{
	(void)number;
	if (running == NULL)
		return;
	fprintf(stderr, "input:");
	for (size_t i = 0; i < running->size; i++)
		fprintf(stderr, " %02x", running->bytes[i]);
	fputc('\n', stderr);
}

const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "abort_on_error=1:detect_leaks=0";
}

int main(int argc, char **argv)
{
	const size_t count = argc < 3 ? 0 : (size_t)argc - 2;
	struct sample *samples = calloc(count + 1, sizeof *samples), *changed = &samples[count];
	const long mutations = argc < 3 ? 0 : strtol(argv[1], NULL, 10);

	if (count == 0 || samples == NULL) {
		fputs("driver MUTATIONS FILE…\n", stderr);
		return EXIT_FAILURE;
	}
	signal(SIGABRT, aborted);
	for (size_t i = 0; i < count; i++) {
		sample_read(&samples[i], argv[i + 2]);
		run(&samples[i]);
	}
	for (long i = 0; i < mutations; i++) {
		*changed = samples[chance(count)];
		for (size_t changes = 1 + chance(CHANGES_MOST); changes > 0; changes--)
			change(changed, &samples[chance(count)]);
		run(changed);
	}
	printf("%zu files, %ld changed ones\n", count, mutations);
	free(samples);
	return EXIT_SUCCESS;
}
