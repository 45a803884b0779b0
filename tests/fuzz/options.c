/* The command line: words that end in NUL characters. What is made of them must be whole. */
#include <argp.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include "fuzz.h"
#include "identity.h"
#include "options.h"
#include "rendezvous_name.h"
#include "trace.h"

enum { WORDS_MOST = 256 };

error_t __real_argp_parse(const struct argp *parser, int argc, char **argv, unsigned flags, int *index,
			  void *input);
error_t __wrap_argp_parse(const struct argp *parser, int argc, char **argv, unsigned flags, int *index,
			  void *input);
void __wrap_argp_error(const struct argp_state *state, const char *format, ...);
void __wrap_argp_failure(const struct argp_state *state, int status, int error, const char *format, ...);

static jmp_buf ended, refused;
static argp_parser_t real_parser;

/* An error that would end the process ends our parser instead, so that argp can tidy up. */
static error_t parser_guard(int key, char *value, struct argp_state *state)
{
	return setjmp(refused) == 0 ? real_parser(key, value, state) : EINVAL;
}

error_t __wrap_argp_parse(const struct argp *parser, int argc, char **argv, unsigned flags, int *index,
			  void *input)
{
	struct argp guarded = *parser;

	real_parser = parser->parser;
	guarded.parser = parser_guard;
	if (__real_argp_parse(&guarded, argc, argv, flags | ARGP_SILENT, index, input) != 0)
		longjmp(ended, 1);
	return 0;
}

void __wrap_argp_error(const struct argp_state *state, const char *format, ...)
{
	(void)state;
	(void)format;
	longjmp(refused, 1);
}

void __wrap_argp_failure(const struct argp_state *state, int status, int error, const char *format, ...)
{
	(void)state;
	(void)status;
	(void)error;
	(void)format;
	longjmp(refused, 1);
}

static size_t length_of(const char *text)
{
	return text == NULL ? 0 : strlen(text);
}

static void container_check(const struct container *container)
{
	char passwd[IDENTITY_SIZE], name[256];
	struct failure failure = {.notice = NULL};
	size_t total = 0;

	CHECK(container->image != NULL && container->command != NULL && container->join_pid >= 0);
	total += strlen(container->image);
	for (size_t i = 0; container->command[i] != NULL; i++)
		total += strlen(container->command[i]);
	for (size_t i = 0; i < container->bind_count; i++) {
		CHECK(length_of(container->binds[i].source) > 0 ||
		      (container->binds[i].source == NULL && container->binds[i].kind == BIND_TMPFS));
		CHECK(container->binds[i].target == NULL || container->binds[i].target[0] != '\0');
	}
	for (size_t i = 0; i < container->variable_count; i++) {
		const struct variable_change *change = &container->variables[i];
		const bool is_file = change->kind == VARIABLE_FILE || change->kind == VARIABLE_FILE_NUL;

		CHECK(is_file ? change->name == NULL : change->name != NULL);
		CHECK(is_file || change->kind == VARIABLE_UNSET ||
		      (change->name[0] != '\0' && change->value != NULL));
		total += length_of(change->name) + length_of(change->value);
	}
	for (size_t i = 0; i < container->ld_cache_count; i++)
		total += strlen(container->ld_cache[i]);
	CHECK(total < SIZE_MAX);
	CHECK(!(container->write && container->write_fake != NULL));
	CHECK(container->trace == NULL || trace_target_valid(container->trace));
	identity_passwd(container, passwd, sizeof passwd);
	CHECK(strlen(passwd) < sizeof passwd - 1 && strstr(passwd, "\n") != NULL);
	identity_group(container, passwd, sizeof passwd);
	rendezvous_container(container);
	if (rendezvous_name(container, name, sizeof name, &failure) == 0)
		CHECK(strlen(name) < 250 && strchr(name, '/') == NULL && strspn(name, ".") < strlen(name));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char *words[WORDS_MOST + 2];
	static struct options options;
	struct input input = {data, size};
	int count = 0;

	memory_watch();
	words[count++] = text_make((const uint8_t *)"ch-run", 6);
	while (input.size > 0 && count <= WORDS_MOST)
		words[count++] = input_word(&input);
	words[count] = NULL;
	if (setjmp(ended) == 0) {
		options_parse(count, words, &options);
		if (!options.show_version && !options.show_errors && options.feature == NULL &&
		    options.peer == NULL)
			container_check(&options.container);
	}
	memory_release();
	return 0;
}
