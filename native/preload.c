/*
 * preload.c - loaded into QEMU with LD_PRELOAD; the only C of the product (the bare guest is a test's).
 *
 * Three things can only be done from inside the process they concern:
 *
 *   1. Write tracking. A userfaultfd belongs to the process that owns the memory. When QEMU maps the guest's
 *      RAM file, the mapping is registered for *asynchronous* write protection: nobody has to answer faults,
 *      the kernel clears the protection at the first write of a page and notes it. The node reads and re-arms
 *      these notes from outside, with ioctl(PAGEMAP_SCAN) on /proc/PID/pagemap (src/qemu/dirty/userfaultfd.ts).
 *   2. Dying with the parent. prctl(PR_SET_PDEATHSIG): a node that is killed leaves no virtual machine behind.
 *   3. Not ending by a signal. QEMU leaves on SIGTERM, SIGINT and SIGHUP, which a host that is shut down sends to every
 *      process: the only copy of a guest would be gone. Its node hears the same signal and hands the guest over first.
 *
 *     QEMU --mmap(RAM file, MAP_SHARED)--> this library --> the real mmap
 *                                                      \--> UFFDIO_REGISTER (write protect) of the result
 *
 * Environment: COLO_RAM    path of the guest's RAM file (no tracking without it)
 *              COLO_PARENT process id of the node (no death signal without it)
 *
 * A failure is one line on standard error and QEMU goes on: the node asks the kernel whether the range is
 * tracked and takes another tracker when it is not.
 * Limits: Linux 6.7 or later for tracking; one RAM file; x86-64 and any other 64-bit glibc platform.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Numbers of the kernel's interface that older header packages do not name yet. */
#define FEATURE_WP_FLAG (1u << 0)
#define FEATURE_WP_SHARED (1u << 12)
#define FEATURE_WP_UNPOPULATED (1u << 13) /* pages never touched are tracked as well */
#define FEATURE_WP_ASYNC (1u << 15)
#define USER_MODE_ONLY 1 /* lets a process without privileges open one; async faults are never delivered */

static int tracking = -1; /* The userfaultfd. It stays open for the life of QEMU: closing it ends the tracking. */

static void complain(const char *what) {
    fprintf(stderr, "colo: %s: %s; written pages will be found in a slower way\n", what, strerror(errno));
}

static int open_tracking(void) {
    if (tracking >= 0) return 0;
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);
    if (fd < 0) {
        complain("userfaultfd is not available");
        return -1;
    }
    struct uffdio_api api = {
        .api = UFFD_API,
        .features = FEATURE_WP_ASYNC | FEATURE_WP_UNPOPULATED | FEATURE_WP_SHARED | FEATURE_WP_FLAG,
    };
    if (ioctl(fd, UFFDIO_API, &api) != 0) {
        complain("this kernel has no asynchronous write tracking");
        close(fd);
        return -1;
    }
    tracking = fd;
    return 0;
}

static void track(void *start, size_t length) {
    if (open_tracking() != 0) return;
    struct uffdio_register range = {
        .range = {.start = (uintptr_t)start, .len = length},
        .mode = UFFDIO_REGISTER_MODE_WP,
    };
    if (ioctl(tracking, UFFDIO_REGISTER, &range) != 0) complain("the guest's RAM cannot be write tracked");
}

static int is_guest_ram(int fd) {
    const char *path = getenv("COLO_RAM");
    struct stat mapped, wanted;
    if (path == NULL || fd < 0 || fstat(fd, &mapped) != 0 || stat(path, &wanted) != 0) return 0;
    return mapped.st_dev == wanted.st_dev && mapped.st_ino == wanted.st_ino;
}

static void *map(void *where, size_t length, int protection, int flags, int fd, off_t offset) {
    static void *(*next)(void *, size_t, int, int, int, off_t);
    if (next == NULL) next = (void *(*)(void *, size_t, int, int, int, off_t))dlsym(RTLD_NEXT, "mmap64");
    void *result = next(where, length, protection, flags, fd, offset);
    if (result == MAP_FAILED || !(flags & MAP_SHARED)) return result;
    int saved = errno; /* Callers may look at errno only after a failure, but a library should not change it. */
    if (is_guest_ram(fd)) track(result, length);
    errno = saved;
    return result;
}

void *mmap(void *where, size_t length, int protection, int flags, int fd, off_t offset) {
    return map(where, length, protection, flags, fd, offset);
}

void *mmap64(void *where, size_t length, int protection, int flags, int fd, off64_t offset) {
    return map(where, length, protection, flags, fd, offset);
}

int sigaction(int number, const struct sigaction *action, struct sigaction *before) {
    static int (*next)(int, const struct sigaction *, struct sigaction *);
    struct sigaction deaf = {.sa_handler = SIG_IGN};
    if (next == NULL) next = (int (*)(int, const struct sigaction *, struct sigaction *))dlsym(RTLD_NEXT, "sigaction");
    int ends = number == SIGTERM || number == SIGINT || number == SIGHUP;
    return next(number, action != NULL && ends && getenv("COLO_PARENT") != NULL ? &deaf : action, before);
}

__attribute__((constructor)) static void die_with_parent(void) {
    const char *parent = getenv("COLO_PARENT");
    if (parent == NULL) return;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fprintf(stderr, "colo: no death signal: %s\n", strerror(errno));
    /* The parent may have died before the line above: then no signal ever comes. */
    if (getppid() != (pid_t)atol(parent)) _exit(1);
}
