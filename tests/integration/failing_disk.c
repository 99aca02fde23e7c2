#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF, FULL, SHORT, SYNC };
static char root[PATH_MAX];
static atomic_int kind;
static atomic_long count, spent;

void fault_arm(const char *folder, int new_kind, long new_count) {
    atomic_store(&kind, OFF);
    strncpy(root, folder, sizeof root - 1);
    atomic_store(&count, new_count);
    if (new_kind != OFF) atomic_store(&spent, 0);
    atomic_store(&kind, new_kind);
}

long fault_spent(void) { return atomic_load(&spent); }

static int inside(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    return length > 0 && !strncmp(path, root, strlen(root));
}

/* How many of n bytes may be written; -1 with errno when none. */
static ssize_t grant(int fd, size_t n) {
    int now = atomic_load(&kind);
    if ((now != FULL && now != SHORT) || n == 0 || !inside(fd)) return n;
    long limit = atomic_load(&count);
    if (now == SHORT) return (long)n > limit ? limit : (long)n;
    long before = atomic_fetch_add(&spent, n);
    if (before >= limit) { errno = ENOSPC; return -1; }
    return before + (long)n > limit ? limit - before : (long)n;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t n) {
    REAL(write);
    ssize_t allowed = grant(fd, n);
    return allowed < 0 ? -1 : real(fd, data, allowed);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    REAL(pwrite);
    ssize_t allowed = grant(fd, n);
    return allowed < 0 ? -1 : real(fd, data, allowed, at);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    REAL(pwrite64);
    ssize_t allowed = grant(fd, n);
    return allowed < 0 ? -1 : real(fd, data, allowed, at);
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(writev);
    if (atomic_load(&kind) == OFF || !inside(fd)) return real(fd, parts, n);
    return n ? write(fd, parts[0].iov_base, parts[0].iov_len) : 0;
}

static int sync_fails(int fd) {
    if (atomic_load(&kind) != SYNC || !inside(fd)) return 0;
    return atomic_fetch_add(&spent, 1) >= atomic_load(&count);
}

int fsync(int fd) {
    REAL(fsync);
    if (sync_fails(fd)) { errno = EIO; return -1; }
    return real(fd);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    if (sync_fails(fd)) { errno = EIO; return -1; }
    return real(fd);
}
