/* A wall clock that is off by as many nanoseconds as the file $IOT_FAKE_CLOCK says (8 bytes, this machine's order), for one program
 * (LD_PRELOAD). It may change at any moment. As with the kernel's clock, a wait until a wall-clock time that is under way follows a jump:
 * it ends at once, or lasts that much longer. The monotonic clock is left alone. Needs glibc 2.30.
 *
 * Why not libfaketime: 0.9.10 doesn't know C11's cnd_timedwait, on which librdkafka's threads wait (they spin or hang for ever), and a jump
 * never reaches a wait that is under way. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define LOOK_AGAIN (50 * 1000000LL)
#define YEAR_2001 1000000000LL /* an earlier deadline counts from boot: it belongs to the monotonic clock */

static const volatile int64_t zero;
static const volatile int64_t *offset = &zero;

__attribute__((constructor)) static void map_file(void) {
    const char *path = getenv("IOT_FAKE_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *found = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (found != MAP_FAILED)
        offset = found;
    close(file);
}

static int64_t nanoseconds(const struct timespec *time) { return time->tv_sec * SECOND + time->tv_nsec; }

static void set(struct timespec *time, int64_t value) {
    time->tv_sec = value / SECOND;
    time->tv_nsec = value % SECOND;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        set(time, nanoseconds(time) + *offset);
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *time, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, time) == 0 ? base : 0;
}

/* The monotonic time at which to look again, at most until the deadline on the wall clock; 0 when that has passed. */
static int next_look(const struct timespec *deadline, struct timespec *look) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t left = nanoseconds(deadline) - nanoseconds(&now);
    if (left <= 0)
        return 0;
    clock_gettime(CLOCK_MONOTONIC, look);
    set(look, nanoseconds(look) + (left < LOOK_AGAIN ? left : LOOK_AGAIN));
    return 1;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex, const struct timespec *restrict deadline) {
    struct timespec look;
    int result;
    if (deadline->tv_sec < YEAR_2001)
        return pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, deadline);
    do {
        if (!next_look(deadline, &look))
            return ETIMEDOUT;
        result = pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, &look);
    } while (result == ETIMEDOUT);
    return result;
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict deadline) {
    int result = pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, deadline); /* the same thing in glibc */
    return result == 0 ? thrd_success : result == ETIMEDOUT ? thrd_timedout : thrd_error;
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict deadline) {
    struct timespec look;
    int result;
    do {
        if (sem_trywait(semaphore) == 0)
            return 0;
        if (!next_look(deadline, &look)) {
            errno = ETIMEDOUT;
            return -1;
        }
        result = sem_clockwait(semaphore, CLOCK_MONOTONIC, &look);
    } while (result == -1 && errno == ETIMEDOUT);
    return result;
}
