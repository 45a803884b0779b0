/* How a sanitized ch-run reports: not to standard error, which a keeper lacks and a test may throw away, but
 * to a file that the tests look for. It is no process's parent, so memory that its command takes over is no
 * leak. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

const char *__asan_default_options(void)
{
	return "abort_on_error=1:detect_leaks=0:log_path=/tmp/sanitizer";
}

const char *__ubsan_default_options(void)
{
	return "print_stacktrace=1";
}
