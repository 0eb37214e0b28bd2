/* A fast upstream for gateway benchmarks: POST /v1/chat/completions as JSON or SSE, on one thread.
 *
 *   upstream          prints the port that it took, on 127.0.0.1
 *
 * The model's name says how it answers: "mock", then any of
 *   -dN  the answer, or its first chunk, comes after N milliseconds
 *   -pN  N microseconds between two chunks; without it they come in one burst
 *   -nN  N chunks, 100 by default
 *   -oN  chooses option N of the question, 0 being A, in one chunk
 *   -xN  only makes it another model, whose words differ
 * The text of a chunk is " @NS", the monotonic time at which it was sent; an -x one's begins with words.
 * GET /stats counts requests by model.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
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

enum { CONNECTIONS = 65536, MODELS = 256, NAME = 64, ROOM = 4096 };

typedef struct {
    int fd, busy, stream, usage, broken;
    long option, id, chunks, sent, pace_ns, due_ns;
    char *data;
    int length, capacity;
} Connection;

static Connection *connections[CONNECTIONS];
static int active[CONNECTIONS], actives;
static struct { char name[NAME]; long asked; } models[MODELS];
static int known;

static const char TEXT[] =
    "The quick brown fox jumps over the lazy dog while a network of small models quietly answers the question "
    "with care and a little wit. Each of the specialists reads the prompt, writes a short draft, and hands it "
    "to the aggregator, which weighs the evidence and streams a single answer back to the person who asked "
    "for it in the first place.";

static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void put(Connection *c, const char *data, int length) {
    while (length > 0 && !c->broken) {
        int n = send(c->fd, data, length, MSG_NOSIGNAL);
        if (n > 0) {
            data += n;
            length -= n;
        } else if (errno == EAGAIN) {
            struct pollfd writable = {.fd = c->fd, .events = POLLOUT};
            if (poll(&writable, 1, 1000) <= 0) c->broken = 1;
        } else if (errno != EINTR) {
            c->broken = 1;
        }
    }
}

static void put_text(Connection *c, const char *text) {
    put(c, text, strlen(text));
}

static void put_json(Connection *c, const char *body, int length) {
    char out[ROOM * 4];
    int n = sprintf(out, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
                         "x-request-id: req_mock\r\n\r\n", length);
    memcpy(out + n, body, length);
    put(c, out, n + length);
}

static void put_event(Connection *c, const char *choices, const char *usage) {
    char event[ROOM], out[ROOM + 32];
    int n = sprintf(event, "data: {\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
                           "\"model\":\"mock\",\"system_fingerprint\":\"fp_mock\",\"choices\":[%s]%s}\n\n", choices, usage);
    put(c, out, sprintf(out, "%x\r\n%.*s\r\n", n, n, event));
}

/* The words of an answer that is no stream, or of chunk `c->sent`. */
static int words(const Connection *c, char *out) {
    if (c->option >= 0) return sprintf(out, "The answer is %c.", (char)('A' + c->option));
    if (!c->stream) return sprintf(out, "%s%s", TEXT, c->id ? " And so on." : "");
    if (c->sent == 0 && c->id) return sprintf(out, "Expert %ld says: @%ld", c->id, now());
    return sprintf(out, " @%ld", now());
}

static void answer_whole(Connection *c) {
    char body[ROOM], said[1024];
    words(c, said);
    int n = sprintf(body,
        "{\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"mock\",\"choices\":"
        "[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\",\"refusal\":null},\"logprobs\":null,"
        "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":64,\"total_tokens\":84,"
        "\"prompt_tokens_details\":{\"cached_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0}},"
        "\"system_fingerprint\":\"fp_mock\"}", said);
    put_json(c, body, n);
    c->busy = 0;
}

static void answer_chunk(Connection *c) {
    char choice[1536], said[1024], usage[256];
    if (c->sent < c->chunks) {
        words(c, said);
        sprintf(choice, "{\"index\":0,\"delta\":{%s\"content\":\"%s\"},\"logprobs\":null,\"finish_reason\":null}",
                c->sent == 0 ? "\"role\":\"assistant\"," : "", said);
        put_event(c, choice, "");
        c->sent++;
        c->due_ns = c->pace_ns ? c->due_ns + c->pace_ns : 0;
        if (c->sent < c->chunks || c->pace_ns == 0) return;
    }
    put_event(c, "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}", "");
    if (c->usage) {
        sprintf(usage, ",\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":%ld,\"total_tokens\":%ld}",
                c->chunks, 20 + c->chunks);
        put_event(c, "", usage);
    }
    put_text(c, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    c->busy = 0;
}

static void answer_stats(Connection *c) {
    char body[MODELS * (NAME + 24)];
    int n = sprintf(body, "{");
    for (int i = 0; i < known; i++) n += sprintf(body + n, "%s\"%s\":%ld", i ? "," : "", models[i].name, models[i].asked);
    n += sprintf(body + n, "}");
    char head[128];
    put(c, head, sprintf(head, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n", n));
    put(c, body, n);
}

static void count(const char *name, int length) {
    int i = 0;
    if (length >= NAME) length = NAME - 1;
    while (i < known && (strncmp(models[i].name, name, length) || models[i].name[length])) i++;
    if (i == known && known < MODELS) memcpy(models[known++].name, name, length);
    if (i < MODELS) models[i].asked++;
}

/* Reads how to answer from the model's name in `body`. */
static void configure(Connection *c, char *body) {
    c->stream = strstr(body, "\"stream\":true") || strstr(body, "\"stream\": true");
    c->usage = strstr(body, "include_usage") != NULL;
    c->option = -1;
    c->id = c->sent = c->pace_ns = 0;
    c->chunks = 100;
    c->due_ns = 0;
    char *name = strstr(body, "\"mock");
    if (!name) return;
    char *at = ++name + 4;
    while (*at == '-') {
        char kind = at[1];
        long value = strtol(at + 2, &at, 10);
        if (kind == 'd') c->due_ns = now() + value * 1000000L;
        if (kind == 'p') c->pace_ns = value * 1000L;
        if (kind == 'n') c->chunks = value;
        if (kind == 'o') c->option = value, c->chunks = 1;
        if (kind == 'x') c->id = value;
    }
    count(name, at - name);
}

/* Bytes of the first request in the buffer with its body; 0 while it is incomplete. */
static int complete(Connection *c, char **body) {
    c->data[c->length] = 0;
    char *end = strstr(c->data, "\r\n\r\n");
    if (!end) return 0;
    *body = end + 4;
    *end = 0;
    char *length = strcasestr(c->data, "\r\ncontent-length:");
    int chunked = strcasestr(c->data, "\r\ntransfer-encoding:") != NULL;
    int total = *body - c->data + (length ? atoi(length + 17) : 0);
    *end = '\r';
    if (chunked) {
        char *last = strstr(end + 2, "\r\n0\r\n\r\n");
        return last ? last + 7 - c->data : 0;
    }
    return c->length < total ? 0 : total;
}

static void receive(Connection *c) {
    char *body;
    int total;
    while (!c->busy && c->length && (total = complete(c, &body))) {
        char kept = c->data[total];
        c->data[total] = 0;
        int stats = !strncmp(c->data, "GET /stats", 10);
        if (stats) answer_stats(c);
        else configure(c, body);
        c->data[total] = kept;
        memmove(c->data, c->data + total, c->length - total);
        c->length -= total;
        if (stats) continue;
        c->busy = 1;
        if (c->stream) {
            put_text(c, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                        "cache-control: no-cache\r\nx-request-id: req_mock\r\ntransfer-encoding: chunked\r\n\r\n");
            if (c->pace_ns && !c->due_ns) c->due_ns = now();
        }
        if (!c->stream && !c->due_ns) answer_whole(c);
        else active[actives++] = c->fd;
    }
}

static void leave(Connection *c) {
    for (int i = 0; i < actives; i++)
        if (active[i] == c->fd) active[i--] = active[--actives];
    c->busy = 0;
    close(c->fd);
}

/* False once the other side has gone. */
static int read_all(Connection *c) {
    for (;;) {
        if (c->length == c->capacity) {
            c->capacity *= 2;
            c->data = realloc(c->data, c->capacity + 1);
        }
        int n = recv(c->fd, c->data + c->length, c->capacity - c->length, MSG_DONTWAIT);
        if (n > 0) c->length += n;
        else return n < 0 && (errno == EAGAIN || errno == EINTR);
        if (c->length < c->capacity) return 1;
    }
}

static void admit(int poller, int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= CONNECTIONS) { close(fd); continue; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        Connection *c = connections[fd];
        if (!c) {
            c = connections[fd] = calloc(1, sizeof *c);
            c->capacity = ROOM;
            c->data = malloc(c->capacity + 1);
        }
        c->fd = fd;
        c->length = c->busy = c->broken = 0;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

/* Says what is due, and sets the timer to what is due next; true where something is due already. */
static int answer_due(int timer) {
    long time = now(), next = 0;
    int waiting = 0;
    for (int i = 0; i < actives;) {
        Connection *c = connections[active[i]];
        if (c->due_ns <= time) {
            if (c->stream) answer_chunk(c);
            else answer_whole(c);
        }
        if (!c->busy) {
            active[i] = active[--actives];
            receive(c);
            continue;
        }
        if (c->due_ns <= time) waiting = 1;
        else if (!next || c->due_ns < next) next = c->due_ns;
        i++;
    }
    if (next && !waiting) {
        struct itimerspec at = {.it_value = {.tv_sec = next / 1000000000L, .tv_nsec = next % 1000000000L}};
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
    }
    return waiting;
}

int main(void) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    prctl(PR_SET_TIMERSLACK, 1000);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), poller = epoll_create1(0);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), waiting = 0;
    if (bind(listener, (void *)&address, size) || listen(listener, 4096)) return perror("upstream"), 1;
    getsockname(listener, (void *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    event.data.fd = timer;
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);
    for (;;) {
        int n = epoll_wait(poller, events, 256, waiting ? 0 : -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            long expirations;
            if (fd == listener) admit(poller, listener);
            else if (fd == timer) { if (read(timer, &expirations, sizeof expirations) < 0) continue; }
            else if (read_all(connections[fd])) receive(connections[fd]);
            else leave(connections[fd]);
        }
        waiting = answer_due(timer);
    }
}
