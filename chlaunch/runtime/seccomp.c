/* Root emulation by a seccomp filter: privileged calls return 0 and do nothing, all others are untouched.
 *
 * This is for package managers, which give files to users that a user namespace with one ID does not have. It
 * protects nothing. What cannot be faked: calls that are privileged only for some value behind a pointer,
 * such as setxattr(2) of security.capability, because a filter sees the pointer alone; and questions asked
 * afterwards, such as getuid(2) or stat(2), which are answered with the truth.
 */
#include "seccomp.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* One kernel serves several: an i386 program on x86-64 makes i386 calls, whoever started it. */
enum architecture { X86_64, I386, ARM64, ARM, PPC64LE, S390X, RISCV64, ARCHITECTURE_COUNT };

static const uint32_t architecture_tokens[ARCHITECTURE_COUNT] = {
	[X86_64] = AUDIT_ARCH_X86_64,
	[I386] = AUDIT_ARCH_I386,
	[ARM64] = AUDIT_ARCH_AARCH64,
	[ARM] = AUDIT_ARCH_ARM,
	[PPC64LE] = AUDIT_ARCH_PPC64LE,
	[S390X] = AUDIT_ARCH_S390X,
	[RISCV64] = EM_RISCV | __AUDIT_ARCH_64BIT | __AUDIT_ARCH_LE, /* has a name since Linux 5.0 only */
};

enum {
	ALWAYS = -1, /* else which argument is the file type: faked for device files, real for others */
	NONE = -1,   /* the architecture has no such call */
};

/*
 * The numbers are those of Linux 6.1's and 6.12's headers; tests/runtime/test_seccomp.py holds what is made
 * of them against the headers. x32, whose numbers carry a bit of their own (0x40000000) under x86-64's token,
 * is not here: its calls equal no number of the table, and are real, as are those of architectures without a
 * column.
 */
static const struct call {
	const char *name;
	int type_argument;
	int numbers[ARCHITECTURE_COUNT];
} calls[] = {
	/* x86-64, i386, arm64, arm, ppc64le, s390x, riscv64 */
	{"chown", ALWAYS, {92, 182, NONE, 182, 181, 212, NONE}},
	{"chown32", ALWAYS, {NONE, 212, NONE, 212, NONE, NONE, NONE}},
	{"fchown", ALWAYS, {93, 95, 55, 95, 95, 207, 55}},
	{"fchown32", ALWAYS, {NONE, 207, NONE, 207, NONE, NONE, NONE}},
	{"fchownat", ALWAYS, {260, 298, 54, 325, 289, 291, 54}},
	{"lchown", ALWAYS, {94, 16, NONE, 16, 16, 198, NONE}},
	{"lchown32", ALWAYS, {NONE, 198, NONE, 198, NONE, NONE, NONE}},
	{"mknod", 1, {133, 14, NONE, 14, 14, 14, NONE}},
	{"mknodat", 2, {259, 297, 33, 324, 288, 290, 33}},
	{"setuid", ALWAYS, {105, 23, 146, 23, 23, 213, 146}},
	{"setuid32", ALWAYS, {NONE, 213, NONE, 213, NONE, NONE, NONE}},
	{"setgid", ALWAYS, {106, 46, 144, 46, 46, 214, 144}},
	{"setgid32", ALWAYS, {NONE, 214, NONE, 214, NONE, NONE, NONE}},
	{"setreuid", ALWAYS, {113, 70, 145, 70, 70, 203, 145}},
	{"setreuid32", ALWAYS, {NONE, 203, NONE, 203, NONE, NONE, NONE}},
	{"setregid", ALWAYS, {114, 71, 143, 71, 71, 204, 143}},
	{"setregid32", ALWAYS, {NONE, 204, NONE, 204, NONE, NONE, NONE}},
	{"setresuid", ALWAYS, {117, 164, 147, 164, 164, 208, 147}},
	{"setresuid32", ALWAYS, {NONE, 208, NONE, 208, NONE, NONE, NONE}},
	{"setresgid", ALWAYS, {119, 170, 149, 170, 169, 210, 149}},
	{"setresgid32", ALWAYS, {NONE, 210, NONE, 210, NONE, NONE, NONE}},
	{"setgroups", ALWAYS, {116, 81, 159, 81, 81, 206, 159}},
	{"setgroups32", ALWAYS, {NONE, 206, NONE, 206, NONE, NONE, NONE}},
	/* These two return the previous ID, not success: root's, that is. */
	{"setfsuid", ALWAYS, {122, 138, 151, 138, 138, 215, 151}},
	{"setfsuid32", ALWAYS, {NONE, 215, NONE, 215, NONE, NONE, NONE}},
	{"setfsgid", ALWAYS, {123, 139, 152, 139, 139, 216, 152}},
	{"setfsgid32", ALWAYS, {NONE, 216, NONE, 216, NONE, NONE, NONE}},
	{"capset", ALWAYS, {126, 185, 91, 185, 184, 185, 91}},
	{"kexec_load", ALWAYS, {246, 283, 104, 347, 268, 277, 104}}, /* for the test below */
};

enum {
	CALL_COUNT = sizeof calls / sizeof *calls,
	CALL_CODE_MOST = 7, /* instructions: see call_add */
	SECTION_MOST = 3 + CALL_COUNT * CALL_CODE_MOST,
	PROGRAM_MOST = 2 + ARCHITECTURE_COUNT * SECTION_MOST,
};

_Static_assert(SECTION_MOST <= UINT8_MAX, "a jump over a section does not fit in struct sock_filter");
_Static_assert(PROGRAM_MOST <= BPF_MAXINSNS, "the kernel takes no longer program");

/* Arguments are 64 bits wide and in the kernel's byte order (seccomp(2)); classic BPF loads 32 bits. A mode
 * is in the lower half, also where the kernel then looks at 16 bits of it only. */
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
enum { LOWER_HALF = 4 };
#else
enum { LOWER_HALF = 0 };
#endif

/* SECCOMP_RET_ERRNO with errno 0: the call is left out and returns 0. */
static const struct sock_filter fake = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO);
static const struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);

static void program_add(struct sock_fprog *program, struct sock_filter instruction)
{
	program->filter[program->len++] = instruction;
}

/* If the accumulator is value go on with the next instruction, else leave out as many as are given. */
static void program_add_if(struct sock_fprog *program, uint32_t value, uint8_t else_skip)
{
	program_add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, else_skip));
}

static void program_add_load(struct sock_fprog *program, size_t offset)
{
	program_add(program, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

/* The accumulator has the number of the call that is made; after an answer nothing needs it any more. */
static void call_add(struct sock_fprog *program, const struct call *call, int number)
{
	if (call->type_argument == ALWAYS) {
		program_add_if(program, (uint32_t)number, 1);
		program_add(program, fake);
		return;
	}
	program_add_if(program, (uint32_t)number, 6);
	program_add_load(program, offsetof(struct seccomp_data, args) +
					  (size_t)call->type_argument * sizeof(uint64_t) + LOWER_HALF);
	program_add(program, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, S_IFMT));
	program_add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, S_IFCHR, 1, 0));
	program_add_if(program, S_IFBLK, 1);
	program_add(program, fake);
	program_add(program, allow);
}

/* The accumulator has the token of the architecture, and still has it after the section if it is another. */
static void section_add(struct sock_fprog *program, enum architecture architecture)
{
	const unsigned short start = program->len;

	program_add_if(program, architecture_tokens[architecture], 0);
	program_add_load(program, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < CALL_COUNT; i++)
		if (calls[i].numbers[architecture] != NONE)
			call_add(program, &calls[i], calls[i].numbers[architecture]);
	program_add(program, allow);
	program->filter[start].jf = (uint8_t)(program->len - start - 1);
}

/* Two calls that fail where they are not faked, whoever makes them, and harm nobody. */
static int fake_test(struct failure *failure)
{
	if (syscall(SYS_kexec_load, 0UL, 0UL, NULL, ~0UL) != 0)
		return FAIL(failure, FAILURE_SECCOMP_TEST, errno, "kexec_load");
	if (syscall(SYS_fchownat, -1, "", -1, -1, 0) != 0)
		return FAIL(failure, FAILURE_SECCOMP_TEST, errno, "fchownat");
	return 0;
}

int seccomp_fake_root(struct failure *failure)
{
	struct sock_filter code[PROGRAM_MOST];
	struct sock_fprog program = {.len = 0, .filter = code};

	program_add_load(&program, offsetof(struct seccomp_data, arch));
	for (enum architecture architecture = 0; architecture < ARCHITECTURE_COUNT; architecture++)
		section_add(&program, architecture);
	program_add(&program, allow);
	/* glibc has no wrapper. Where an outer sandbox's filter refuses one of the calls with an errno, it is
	 * faked all the same: of several such answers the newest filter's counts (seccomp(2)). */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0)
		return fake_test(failure);
	/* EINVAL: a kernel with seccomp, but without CONFIG_SECCOMP_FILTER (seccomp(2)). */
	return FAIL(failure, errno == ENOSYS || errno == EINVAL ? FAILURE_SECCOMP_MISSING : FAILURE_SECCOMP,
		    errno, "seccomp(2)");
}
