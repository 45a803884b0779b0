/*
 * When a rank came to which point of its start.
 *
 * A datagram, because a rank that sends one waits for nobody: neither for an address where nothing answers,
 * nor for a listener whom ten thousand ranks call at once. What gets lost is missed in a picture. IPv4 only.
 */
#include "trace.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <time.h>

#include "cleanup.h"

enum {
	TARGETS_MOST = 8,
	TOKEN_MOST = 64,
	RECORD_SIZE = 512, /* one packet on any network */
};

struct target {
	struct sockaddr_in addresses[TARGETS_MOST];
	size_t count;
	const char *token;
};

/* How points are called in a record. */
static const char *const point_names[TRACE_COUNT] = {
	[TRACE_BEGUN] = "begun",     [TRACE_WAITED] = "waited", [TRACE_ENTERED] = "entered",
	[TRACE_MOUNTED] = "mounted", [TRACE_JOINED] = "joined", [TRACE_EXEC] = "exec",
};

/* Where launchers say which rank of how many this is, innermost launcher first: mpirun(1), Hydra and PMI,
 * PMIx, srun(1). */
static const struct {
	const char *rank, *size;
} rank_variables[] = {
	{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
	{"PMI_RANK", "PMI_SIZE"},
	{"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"},
	{"PMIX_RANK", NULL},
};

static int64_t microseconds(clockid_t clock)
{
	struct timespec now = {0};

	clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void trace_note(struct trace *trace, enum trace_point point)
{
	if (trace->target != NULL && trace->points[point] == 0)
		trace->points[point] = microseconds(CLOCK_MONOTONIC);
}

/* One address, up to `length` of text. */
static bool address_parse(const char *text, size_t length, struct in_addr *address)
{
	char copy[INET_ADDRSTRLEN];

	if (length >= sizeof copy)
		return false;
	memcpy(copy, text, length);
	copy[length] = '\0';
	return inet_pton(AF_INET, copy, address) == 1;
}

static bool target_parse(const char *text, struct target *target)
{
	const char *colon = strchr(text, ':');
	char *slash;
	long port;

	if (colon == NULL || colon[1] < '1' || colon[1] > '9')
		return false;
	port = strtol(colon + 1, &slash, 10);
	target->token = slash + 1;
	if (port > UINT16_MAX || *slash != '/' || target->token[0] == '\0' ||
	    target->token[strspn(target->token, "0123456789abcdef")] != '\0' ||
	    strlen(target->token) > TOKEN_MOST)
		return false;
	for (target->count = 0; target->count < TARGETS_MOST; target->count++) {
		struct sockaddr_in *address = &target->addresses[target->count];
		const size_t length = strcspn(text, ",:");

		*address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
		if (!address_parse(text, length, &address->sin_addr))
			return false;
		text += length + 1;
		if (text > colon) {
			target->count++;
			return true;
		}
	}
	return false;
}

bool trace_target_valid(const char *text)
{
	struct target target;

	return target_parse(text, &target);
}

static bool number_copy(const char *variable, char *copy)
{
	const char *text = variable == NULL ? NULL : getenv(variable);

	if (text == NULL || text[0] == '\0' || strlen(text) >= TRACE_NUMBER_SIZE ||
	    text[strspn(text, "0123456789")] != '\0')
		return false;
	strcpy(copy, text);
	return true;
}

struct trace trace_begin(const char *target)
{
	struct trace trace = {.target = target, .rank = "-", .size = "-"};

	if (target == NULL)
		return trace;
	trace_note(&trace, TRACE_BEGUN);
	for (size_t i = 0; i < sizeof rank_variables / sizeof *rank_variables; i++) {
		if (number_copy(rank_variables[i].rank, trace.rank)) {
			number_copy(rank_variables[i].size, trace.size);
			break;
		}
	}
	return trace;
}

/* TOKEN HOST PID RANK SIZE OFFSET POINT=TIME…: times are CLOCK_MONOTONIC's, and with OFFSET they are of the
 * day. */
static size_t record_make(const struct trace *trace, const char *token, char *text)
{
	struct utsname host = {.nodename = "-"};
	size_t used;

	uname(&host);
	used = (size_t)snprintf(text, RECORD_SIZE, "%s %.64s %d %s %s %jd", token, host.nodename, getpid(),
				trace->rank, trace->size,
				(intmax_t)(microseconds(CLOCK_REALTIME) - microseconds(CLOCK_MONOTONIC)));
	for (size_t i = 0; i < TRACE_COUNT; i++)
		if (trace->points[i] != 0 && used < RECORD_SIZE)
			used += (size_t)snprintf(text + used, RECORD_SIZE - used, " %s=%jd", point_names[i],
						 (intmax_t)trace->points[i]);
	return used < RECORD_SIZE ? used : RECORD_SIZE - 1;
}

void trace_send(const struct trace *trace)
{
	struct target target;
	char record[RECORD_SIZE];
	size_t length;

	if (trace->target == NULL || !target_parse(trace->target, &target))
		return;
	CLEANUP_FD int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	length = record_make(trace, target.token, record);
	for (size_t i = 0; fd >= 0 && i < target.count; i++)
		sendto(fd, record, length, 0, (struct sockaddr *)&target.addresses[i],
		       sizeof target.addresses[i]);
}
