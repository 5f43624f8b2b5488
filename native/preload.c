/*
 * preload.c - loaded into QEMU with LD_PRELOAD; the only C of the product (the bare guest is a test's).
 *
 * Five things can only be done from inside the process they concern:
 *
 *   1. Write tracking. A userfaultfd belongs to the process that owns the memory. When QEMU maps the guest's
 *      RAM file, the mapping is registered for *asynchronous* write protection: nobody has to answer faults,
 *      the kernel clears the protection at the first write of a page and notes it. The node reads and re-arms
 *      these notes from outside, with ioctl(PAGEMAP_SCAN) on /proc/PID/pagemap (src/qemu/dirty/userfaultfd.ts).
 *   2. Further RAM blocks. A VGA card's memory and flash are memory of their own, which device state leaves out and
 *      nobody outside can map. QEMU calls madvise(MADV_DONTFORK) on every RAM block it makes, with the block's exact
 *      size, before anything uses it: a block whose size is one of those we are told moves into the RAM file, behind
 *      the guest's RAM, at the offset that stands with its size. From then on it is RAM like any other to the node.
 *   3. Dying with the parent. prctl(PR_SET_PDEATHSIG): a node that is killed leaves no virtual machine behind.
 *   4. Not ending by a signal. QEMU leaves on SIGTERM, SIGINT and SIGHUP, which a host that is shut down sends to every
 *      process: the only copy of a guest would be gone. Its node hears the same signal and hands the guest over first.
 *   5. Time under KVM. Around every pause QEMU stops its own clock (PM timer, HPET) and puts kvmclock back to where it
 *      was at the stop, while the TSC runs on: the guest loses each pause on some of its clocks and not on the others.
 *      Here all run on (docs/decisions/0007-clock-alignment.md): the node holds the clock that QEMU reads before it
 *      stops the guest, and QEMU's order to put kvmclock back is left out, which also lets the held clock go.
 *
 *          node: hold   QEMU: stop, its clock stops at H    cont, its clock goes on from H    KVM_SET_CLOCK: let go
 *          clock_gettime() ----H----------------------------------------H--------------------------|---- now ----
 *
 *      So QEMU finds that no time has passed between its stop and its cont, and right after that its clock shows the
 *      true time. A loaded state is started in the same way: the held time is the moment, on this host, of which the
 *      state is.
 *
 *     QEMU --mmap(RAM file, MAP_SHARED)--> this library --> the real mmap
 *                                                      \--> UFFDIO_REGISTER (write protect) of the result
 *     QEMU --madvise(block, BYTES, MADV_DONTFORK)--> mmap(block, RAM file at OFFSET, MAP_FIXED) --> as above
 *
 * Environment: COLO_RAM    path of the guest's RAM file (no tracking without it)
 *              COLO_BLOCKS further blocks, "OFFSET:BYTES,OFFSET:BYTES": each is taken by the first block of its size
 *              COLO_PARENT process id of the node (no death signal without it)
 *              COLO_CLOCK  path of the clock's page, which the node maps too (time is left as QEMU does it without it)
 *
 * A failure is one line on standard error and QEMU goes on: the node asks the kernel whether the range is
 * tracked, and takes another tracker when it is not; it refuses a machine one of whose blocks is not in the file.
 * Limits: Linux 6.7 or later for tracking; one RAM file; x86-64 and any other 64-bit glibc platform.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
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

/* The wanted blocks that nobody has taken yet: a bit for each of the list. */
static unsigned taken;

/* The offset for a block of this size, or -1. Takes it. */
static off64_t claim_place(size_t length) {
    const char *at = getenv("COLO_BLOCKS");
    for (unsigned index = 0; at != NULL && *at != 0 && index < 8 * sizeof(taken); index++) {
        char *end;
        off64_t offset = (off64_t)strtoull(at, &end, 10);
        if (*end != ':') return -1;
        size_t bytes = (size_t)strtoull(end + 1, &end, 10);
        at = *end == ',' ? end + 1 : end;
        if (bytes != length || (taken >> index & 1)) continue;
        taken |= 1u << index;
        return offset;
    }
    return -1;
}

/* What the block holds already moves with it: nothing, as far as we know QEMU. */
static int write_all(int fd, const char *from, size_t length, off64_t offset) {
    for (size_t done = 0; done < length;) {
        ssize_t written = pwrite64(fd, from + done, length - done, offset + (off64_t)done);
        if (written <= 0) return -1;
        done += (size_t)written;
    }
    return 0;
}

static void move_block(void *block, size_t length) {
    const char *path = getenv("COLO_RAM");
    if (path == NULL || getenv("COLO_BLOCKS") == NULL) return;
    off64_t offset = claim_place(length);
    if (offset < 0) return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || write_all(fd, block, length, offset) != 0 ||
        map(block, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, offset) == MAP_FAILED)
        fprintf(stderr, "colo: a RAM block of %zu bytes cannot be moved: %s\n", length, strerror(errno));
    if (fd >= 0) close(fd);
}

int madvise(void *start, size_t length, int advice) {
    static int (*next)(void *, size_t, int);
    if (next == NULL) next = (int (*)(void *, size_t, int))dlsym(RTLD_NEXT, "madvise");
    int saved = errno;
    if (advice == MADV_DONTFORK) move_block(start, length);
    errno = saved;
    return next(start, length, advice);
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

/* One page that the node and QEMU share; the layout is that of src/qemu/clock-page.ts. */
enum { RUNNING = 0, HOLDING = 1, STARTING = 2 };
struct clock_page {
    _Atomic uint32_t state;    /* The node sets it, and `held` before; the order to set kvmclock puts it back. */
    _Atomic uint32_t kept;     /* How often kvmclock was left running. */
    _Atomic uint64_t held;     /* What the clock shows while it is held, in ns; 0: as it is when it is first read. */
    _Atomic uint64_t loaded;   /* Of what moment the TSC is that is loaded now, in ns; 0: nothing is loaded. */
    _Atomic uint32_t started;  /* How often kvmclock was set to a later moment than that of the loaded state. */
    _Atomic uint32_t tsc_moved; /* How often the TSC of a vCPU was. */
    _Atomic uint64_t read;     /* When QEMU last read kvmclock, which it does when the guest has stopped, in ns. */
    _Atomic uint32_t pausing;  /* Set by the node over a pause in which nothing is loaded. */
    _Atomic uint32_t pit_kept; /* How often KVM's PIT was left running. */
    _Atomic uint32_t timer_moved; /* How often the timer of a local APIC was set to a later moment, as the TSC. */
    _Atomic uint32_t is_heard; /* Set by us when KVM is opened: we are in QEMU, and not only in what started it. */
};

static struct clock_page *clock_page;

__attribute__((constructor)) static void map_clock_page(void) {
    const char *path = getenv("COLO_CLOCK");
    if (path == NULL) return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *page = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(struct clock_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) fprintf(stderr, "colo: no clock page: %s\n", strerror(errno));
    else clock_page = page;
    if (fd >= 0) close(fd);
}

static uint64_t nanoseconds(const struct timespec *time) {
    return (uint64_t)time->tv_sec * 1000000000 + (uint64_t)time->tv_nsec;
}

static int real_clock(clockid_t id, struct timespec *time) {
    static int (*next)(clockid_t, struct timespec *);
    if (next == NULL) next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    return next(id, time);
}

static uint64_t since(uint64_t moment) {
    struct timespec now;
    real_clock(CLOCK_MONOTONIC, &now);
    return nanoseconds(&now) > moment ? nanoseconds(&now) - moment : 0;
}

/*
 * CLOCK_MONOTONIC, which all of QEMU's timers follow, as it is held. While the guest runs it never goes back: who finds
 * it not held, before and after reading the time, has read it before it was held.
 */
int clock_gettime(clockid_t id, struct timespec *time) {
    if (id != CLOCK_MONOTONIC || clock_page == NULL) return real_clock(id, time);
    for (;;) {
        uint32_t before = atomic_load(&clock_page->state);
        int result = real_clock(id, time);
        if (before != atomic_load(&clock_page->state)) continue;
        if (before == RUNNING || result != 0) return result;
        uint64_t held = 0;
        if (atomic_compare_exchange_strong(&clock_page->held, &held, nanoseconds(time))) return 0;
        time->tv_sec = (time_t)(held / 1000000000);
        time->tv_nsec = (long)(held % 1000000000);
        return 0;
    }
}

static int real_ioctl(int fd, unsigned long request, void *argument) {
    static int (*next)(int, unsigned long, void *);
    if (next == NULL) next = (int (*)(int, unsigned long, void *))dlsym(RTLD_NEXT, "ioctl");
    return next(fd, request, argument);
}

/*
 * At every restart QEMU puts kvmclock back to its value of the stop, or to the one that it loaded. After a mere pause
 * the order is left out: KVM's clock has never stopped. After a load the time since the moment of the loaded state is
 * added.
 */
static int set_kvmclock(int fd, const struct kvm_clock_data *data) {
    uint32_t state = atomic_exchange(&clock_page->state, RUNNING);
    if (state == HOLDING) {
        atomic_fetch_add(&clock_page->kept, 1);
        return 0;
    }
    struct kvm_clock_data set = *data;
    if (state == STARTING) {
        set.clock += since(atomic_load(&clock_page->held));
        atomic_fetch_add(&clock_page->started, 1);
    }
    return real_ioctl(fd, KVM_SET_CLOCK, &set);
}

/* A TSC that is loaded is set while the machine stands, and runs from then on: the time since its moment is added. */
static void move_tsc(int vcpu, struct kvm_msrs *msrs) {
    enum { IA32_TSC = 0x10 };
    uint64_t loaded = atomic_load(&clock_page->loaded);
    if (loaded == 0) return;
    for (uint32_t at = 0; at < msrs->nmsrs; at++) {
        struct kvm_msr_entry *msr = &msrs->entries[at];
        if (msr->index != IA32_TSC || msr->data == 0) continue; /* 0: the reset before a load. */
        int khz = real_ioctl(vcpu, KVM_GET_TSC_KHZ, NULL);
        if (khz <= 0) return;
        msr->data += (uint64_t)((unsigned __int128)since(loaded) * (unsigned)khz / 1000000);
        atomic_fetch_add(&clock_page->tsc_moved, 1);
    }
}

/*
 * The timer of a local APIC. KVM tells what is left of it; QEMU asks and does not keep that, so a loaded timer would
 * begin anew. Here it travels in bits of three other registers that no processor has and that QEMU saves as they are
 * (17 to 31 of the local vector table), as of the moment of kvmclock, and is taken out again before KVM sees them.
 */
enum { TIMER = 0x320, INITIAL = 0x380, CURRENT = 0x390, DIVIDE = 0x3e0, PERIODIC = 1 << 17, DEADLINE = 1 << 18 };
enum { CARRIER_SHIFT = 17, CARRIER_BITS = 15 };
static const unsigned carriers[] = {0x330, 0x340, 0x370}; /* thermal sensor, performance counters, errors */

static uint32_t apic_get(const struct kvm_lapic_state *apic, unsigned at) {
    uint32_t value;
    memcpy(&value, apic->regs + at, sizeof(value));
    return value;
}

static void apic_set(struct kvm_lapic_state *apic, unsigned at, uint32_t value) {
    memcpy(apic->regs + at, &value, sizeof(value));
}

/* A timer with a deadline follows the TSC. */
static int counts_down(const struct kvm_lapic_state *apic) {
    return apic_get(apic, INITIAL) != 0 && !(apic_get(apic, TIMER) & DEADLINE);
}

/* So many nanoseconds in counts: KVM counts one each, divided by 2, 4 ... 128, 1 by its code. */
static uint64_t apic_counts(const struct kvm_lapic_state *apic, uint64_t ns) {
    uint32_t code = apic_get(apic, DIVIDE);
    return ns >> ((((code & 3) | (code >> 1 & 4)) + 1) & 7);
}

static void carry_timer(struct kvm_lapic_state *apic) {
    uint32_t current = apic_get(apic, CURRENT), initial = apic_get(apic, INITIAL);
    if (!atomic_load(&clock_page->pausing) || !counts_down(apic) || current == 0) return;
    uint64_t then = current + apic_counts(apic, since(atomic_load(&clock_page->read)));
    if (then > initial) then = apic_get(apic, TIMER) & PERIODIC ? (then - 1) % initial + 1 : initial;
    for (unsigned i = 0; i < 3; i++) {
        uint32_t part = (uint32_t)(then >> i * CARRIER_BITS) & ((1u << CARRIER_BITS) - 1);
        uint32_t own = apic_get(apic, carriers[i]) & ((1u << CARRIER_SHIFT) - 1);
        apic_set(apic, carriers[i], own | part << CARRIER_SHIFT);
    }
}

/* What is left now; one that should have fired meanwhile fires at once. */
static void move_timer(struct kvm_lapic_state *apic) {
    uint64_t then = 0, loaded = atomic_load(&clock_page->loaded);
    for (unsigned i = 0; i < 3; i++) {
        uint32_t value = apic_get(apic, carriers[i]);
        then |= (uint64_t)(value >> CARRIER_SHIFT) << i * CARRIER_BITS;
        apic_set(apic, carriers[i], value & ((1u << CARRIER_SHIFT) - 1));
    }
    if (then == 0 || !counts_down(apic)) return;
    uint32_t initial = apic_get(apic, INITIAL);
    int over_and_over = (apic_get(apic, TIMER) & PERIODIC) != 0;
    uint64_t passed = loaded == 0 ? 0 : apic_counts(apic, since(loaded));
    if (over_and_over) passed %= initial;
    uint64_t left = passed < then ? then - passed : over_and_over ? then + initial - passed : 1;
    apic_set(apic, CURRENT, (uint32_t)left);
    atomic_fetch_add(&clock_page->timer_moved, 1);
}

int ioctl(int fd, unsigned long request, ...) {
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (clock_page == NULL) return real_ioctl(fd, request, argument);
    /*
     * QEMU keeps the number in an int, whose highest bit is set where the kernel writes: then the rest of it is, too.
     */
    uint32_t number = (uint32_t)request;
    if (number == KVM_GET_API_VERSION) atomic_store(&clock_page->is_heard, 1);
    if (number == KVM_SET_CLOCK) return set_kvmclock(fd, argument);
    if (number == KVM_SET_MSRS) move_tsc(fd, argument);
    if (number == KVM_SET_LAPIC) move_timer(argument);
    /* To set KVM's PIT begins its period anew: after a mere pause it is left running, too. */
    if (number == KVM_SET_PIT2 && atomic_load(&clock_page->pausing)) {
        atomic_fetch_add(&clock_page->pit_kept, 1);
        return 0;
    }
    int result = real_ioctl(fd, request, argument);
    if (number == KVM_GET_CLOCK) atomic_store(&clock_page->read, since(0));
    if (number == KVM_GET_LAPIC && result == 0) carry_timer(argument);
    return result;
}
