/* A load generator for gateways: POST /v1/chat/completions over kept connections, whole or streamed.
 *
 *   load PORT CONNECTIONS SECONDS WARM_UP_S RATE KEY < BODY
 *
 * RATE is requests per second, sent on time whatever comes back and timed from when they were due; with 0, each
 * connection sends again as soon as it has its answer. The ten digits of "#0000000000" in the body count up, so that
 * no two requests are equal. Prints "begin" when the warm-up is over and "end" after SECONDS of measuring (later
 * where nothing has been answered in that time), waits for the answers still to come, and prints one line of JSON:
 * what was answered between the two, with [p50, p99] of its times in microseconds; `total` and `errors` are of all
 * that was sent. A chunk is a content that begins with " @NS", the monotonic time at which it left the upstream.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000L
enum { SPREAD_NS = 10000000, PATIENCE_S = 30 };

typedef struct {
    int fd, busy, head, chunked, closing, status;
    long left;      /* bytes still to come of the body, or of its chunk; -1 before the chunk's size is known */
    long due, first, last, stamps;
    char *in;       /* received and not yet decoded */
    int in_length, in_capacity;
    char *body;     /* decoded */
    int length, capacity, scanned;
} Connection;

typedef struct { long *values; size_t length, capacity; } Series;

static Series latency, first, delay, rate;
static Connection *all;
static int poller, port, measuring;
static char *request, *nonce;
static int request_length;
static long sent, total, answered, chunks, errors;

static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static void add(Series *s, long value) {
    if (!measuring) return;
    if (s->length == s->capacity) s->values = realloc(s->values, (s->capacity = 2 * s->capacity + 1024) * sizeof(long));
    s->values[s->length++] = value;
}

static int ascending(const void *a, const void *b) {
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

/* `divisor` turns nanoseconds into what is printed. */
static void print_series(const char *name, Series *s, double divisor) {
    if (!s->length) {
        printf(",\"%s\":null", name);
        return;
    }
    qsort(s->values, s->length, sizeof(long), ascending);
    printf(",\"%s\":[%.3f,%.3f]", name, s->values[(s->length - 1) / 2] / divisor,
           s->values[(s->length - 1) * 99 / 100] / divisor);
}

static void fail(const char *what, Connection *c) {
    if (!errors++) fprintf(stderr, "%s; status %d: %.300s\n", what, c->status, c->length ? c->body : "");
}

static void open_connection(Connection *c) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (void *)&to, sizeof to)) {
        perror("cannot connect");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = c - all};
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
    c->busy = c->closing = c->in_length = 0;
}

static void ask(Connection *c, long due) {
    char digits[16];
    if (nonce) {
        snprintf(digits, sizeof digits, "%010ld", sent % SECOND);
        memcpy(nonce, digits, 10);
    }
    sent++;
    c->busy = 1;
    c->head = c->chunked = c->status = c->length = c->scanned = 0;
    c->due = due;
    c->first = c->last = c->stamps = 0;
    c->left = -1;
    for (int done = 0, n; done < request_length; done += n)
        if ((n = send(c->fd, request + done, request_length - done, MSG_NOSIGNAL)) <= 0) break; /* reading will tell */
}

/* Whether what ends before `at` is `"content": "`: an answer may be repeated elsewhere, as in a report of it. */
static int in_content(const Connection *c, const char *at) {
    while (at > c->body && strchr("\" :", at[-1])) at--;
    return at - c->body >= 7 && !strncmp(at - 7, "content", 7);
}

static void scan(Connection *c, long time) {
    char *at = c->body + c->scanned, *end;
    while ((at = memchr(at, '@', c->body + c->length - at))) {
        long stamp = strtol(at + 1, &end, 10);
        if (!*end) return;  /* cut: the rest of it comes with the next bytes */
        if (end > at + 9 && in_content(c, at)) {
            add(&delay, time - stamp);
            if (!c->stamps++) c->first = time;
            c->last = time;
            if (measuring) chunks++;
        }
        at = end;
        c->scanned = at - c->body;
    }
    c->scanned = c->length;
}

static void keep(Connection *c, const char *data, int length) {
    while (c->length + length >= c->capacity) c->body = realloc(c->body, c->capacity = 2 * c->capacity + 4096);
    memcpy(c->body + c->length, data, length);
    c->length += length;
    c->body[c->length] = 0;
}

static void finish(Connection *c, long time) {
    c->busy = 0;
    total++;
    if (c->status != 200 || !strstr(c->body, c->chunked && c->stamps ? "[DONE]" : "finish_reason")) {
        fail("not answered as asked", c);
    } else if (measuring) {
        answered++;
        add(&latency, time - c->due);
        if (c->stamps) add(&first, c->first - c->due);
        if (c->stamps > 1 && c->last > c->first) add(&rate, (c->stamps - 1) * SECOND * 1000 / (c->last - c->first));
    }
    if (c->closing) {
        close(c->fd);
        open_connection(c);
    }
}

/* Decodes the status line and headers; false while they are incomplete. */
static int read_head(Connection *c, char **at) {
    char *end = strstr(*at, "\r\n\r\n");
    if (!end) return 0;
    *end = 0;
    char *length = strcasestr(*at, "\r\ncontent-length:");
    c->status = atoi(*at + 9);
    c->chunked = strcasestr(*at, "\r\ntransfer-encoding: chunked") != NULL;
    c->closing = strcasestr(*at, "\r\nconnection: close") != NULL;
    c->left = c->chunked ? -1 : length ? atol(length + 17) : 0;
    c->head = 1;
    *at = end + 4;
    return 1;
}

/* Decodes what has been received; the body's chunks end with one of size 0. */
static void decode(Connection *c, long time) {
    char *at = c->in, *end = c->in + c->in_length;
    while (c->busy && at < end) {
        if (!c->head) {
            if (!read_head(c, &at)) break;
            keep(c, "", 0);
        } else if (c->chunked && c->left < 0) {
            char *line = strstr(at, "\r\n");
            if (!line) break;
            c->left = strtol(at, NULL, 16) + 2;  /* with the line's end behind it */
            if (c->left == 2) c->left = -2;
            at = line + 2;
            if (c->left == -2) {
                at = end;
                scan(c, time);
                finish(c, time);
            }
        } else {
            long n = end - at < c->left ? end - at : c->left;
            long text = c->chunked ? (c->left - 2 < n ? c->left - 2 : n) : n;
            if (text > 0) keep(c, at, text);
            at += n;
            c->left -= n;
            if (c->chunked && c->left == 0) c->left = -1;
        }
        if (c->busy && c->head && !c->chunked && c->left == 0) {
            scan(c, time);
            finish(c, time);
        }
    }
    if (c->busy) {
        if (c->head) scan(c, time);
        memmove(c->in, at, end - at);
        c->in_length = end - at;
    } else {
        c->in_length = 0;
    }
}

/* Reads once. */
static void receive(Connection *c) {
    if (c->in_length == c->in_capacity) c->in = realloc(c->in, (c->in_capacity = 2 * c->in_capacity + 65536) + 1);
    int n = recv(c->fd, c->in + c->in_length, c->in_capacity - c->in_length, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n > 0) {
        c->in_length += n;
        c->in[c->in_length] = 0;
        decode(c, now());
        return;
    }
    if (c->busy) {
        total++;
        fail("closed before its answer was complete", c);
    }
    close(c->fd);
    open_connection(c);
}

static void prepare(const char *key) {
    static char body[1 << 20];
    int length = fread(body, 1, sizeof body - 1, stdin);
    request = malloc(length + 1024);
    int head = sprintf(request, "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nauthorization: Bearer %.200s\r\n"
                       "content-type: application/json\r\ncontent-length: %d\r\n\r\n", port, key, length);
    memcpy(request + head, body, length + 1);
    request_length = head + length;
    nonce = strstr(request, "#0000000000");
    if (nonce) nonce++;
}

int main(int argc, char **argv) {
    if (argc != 7) return fprintf(stderr, "load PORT CONNECTIONS SECONDS WARM_UP_S RATE KEY < BODY\n"), 2;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    prctl(PR_SET_TIMERSLACK, 1000);
    port = atoi(argv[1]);
    int connections = atoi(argv[2]);
    double seconds = atof(argv[3]), warm_up_s = atof(argv[4]), per_s = atof(argv[5]);
    prepare(argv[6]);
    poller = epoll_create1(0);
    all = calloc(connections, sizeof *all);
    for (int i = 0; i < connections; i++) open_connection(all + i);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec tick = {.it_value.tv_nsec = 1, .it_interval.tv_nsec = per_s > 0 ? 500000 : 1000000};
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = connections}, events[256];
    timerfd_settime(timer, 0, &tick, NULL);
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);

    long start = now(), begin = start + (long)(warm_up_s * SECOND), end = begin + (long)(seconds * SECOND);
    long interval = per_s > 0 ? (long)(SECOND / per_s) : 0, next = start, stop = 0, elapsed = 0;
    int turn = 0, opened = 0;
    for (;;) {
        long time = now();
        if (!measuring && !stop && time >= begin) {
            measuring = 1;
            begin = time;
            end = begin + (long)(seconds * SECOND);
            puts("begin");
            fflush(stdout);
        }
        if (measuring && time >= end && (answered || errors || time >= end + PATIENCE_S * SECOND)) {
            measuring = 0;
            elapsed = time - begin;
            stop = time;
            puts("end");
            fflush(stdout);
        }
        if (stop && (total == sent || time >= stop + PATIENCE_S * SECOND)) break;
        if (!stop && interval)
            for (int tried = 0; next <= time && tried < connections; tried++, turn = (turn + 1) % connections)
                if (!all[turn].busy) {
                    ask(all + turn, next);
                    next += interval;
                    tried = -1;
                }
        if (!stop && !interval && opened < connections) /* not all at the same moment */
            for (; opened < connections && start + (long)SPREAD_NS * opened / connections <= time; opened++)
                ask(all + opened, time);
        int n = epoll_wait(poller, events, 256, 100);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u32 == (unsigned)connections) {
                long expirations;
                if (read(timer, &expirations, sizeof expirations) < 0) continue;
                continue;
            }
            Connection *c = all + events[i].data.u32;
            receive(c);
            if (!c->busy && !stop && !interval && c - all < opened) ask(c, now());
        }
    }
    errors += sent - total;
    printf("{\"seconds\":%.6f,\"answered\":%ld,\"chunks\":%ld,\"total\":%ld,\"errors\":%ld", elapsed / 1e9, answered,
           chunks, sent, errors);
    print_series("latency_us", &latency, 1e3);
    print_series("first_us", &first, 1e3);
    print_series("delay_us", &delay, 1e3);
    print_series("chunks_per_s", &rate, 1e3);
    puts("}");
    return 0;
}
