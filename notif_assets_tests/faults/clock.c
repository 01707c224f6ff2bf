/* The clock on the wall of one process, as far off the true time as the file CLOCK_FILE says in seconds; it may be put
   at any moment. The monotonic clock goes on, and waits last as long as they should, as when an administrator or NTP puts
   the system's clock. (libfaketime 0.9.10 does not do that: Python's sleep fails under it.) */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static long off(void) {
    char text[32] = {0};
    int file = open(getenv("CLOCK_FILE"), O_RDONLY);
    if (file < 0) return 0;
    if (read(file, text, sizeof text - 1) < 0) text[0] = 0;
    close(file);
    return atol(text);
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, id, now);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += off();
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now) *now = precise.tv_sec;
    return precise.tv_sec;
}

/* A deadline, as the system knows it; one of the monotonic clock is small. */
static struct timespec truly(const struct timespec *deadline) {
    struct timespec then = *deadline;
    if (then.tv_sec > 1000000000) then.tv_sec -= off();
    return then;
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *deadline) {
    static int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    struct timespec then = truly(deadline);
    if (!wait) wait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");  /* the oldest one is another */
    if (!wait) wait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    return wait(condition, mutex, &then);
}

int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *deadline) {
    static int (*wait)(cnd_t *, mtx_t *, const struct timespec *);
    struct timespec then = truly(deadline);
    if (!wait) wait = dlsym(RTLD_NEXT, "cnd_timedwait");
    return wait(condition, mutex, &then);
}
