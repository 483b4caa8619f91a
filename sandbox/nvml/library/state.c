/* The control directory: read again whenever it changed, so that a test in another process
 * can change the hardware while the library is in use. */
#define _GNU_SOURCE
#include "fake_nvml.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define VARIABLE "GPU_FRACTION_FAKE_NVML"
#define FIELDS 32

int fake_initialised;
long long fake_loads;
state_t *fake_state;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static handle_t *handles;
static char seen[PATH_SIZE + 64]; /* path and first line of the file that was read */

const char *fake_path(const char *file, char *out, size_t size) {
    const char *directory = getenv(VARIABLE);
    if (!directory || !*directory) return NULL;
    snprintf(out, size, "%s/%s", directory, file);
    return out;
}

/* Longer would be felt by tests, shorter by a daemon that should cost nothing while idle. */
void fake_pause(void) {
    struct timespec twenty_ms = {0, 20000000};
    nanosleep(&twenty_ms, NULL);
}

/* One line is fields between tabs; after the first, those of the form key=value. */
static const char *value(char **fields, int n, const char *key) {
    size_t length = strlen(key);
    for (int i = 1; i < n; i++)
        if (!strncmp(fields[i], key, length) && fields[i][length] == '=')
            return fields[i] + length + 1;
    return NULL;
}

static long long number(char **fields, int n, const char *key, long long fallback) {
    const char *text = value(fields, n, key);
    return text ? strtoll(text, NULL, 10) : fallback;
}

static void text(char **fields, int n, const char *key, char *out, size_t size) {
    const char *found = value(fields, n, key);
    snprintf(out, size, "%s", found ? found : "");
}

#define NUMBER(FIELD, FALLBACK) item->FIELD = number(f, n, #FIELD, FALLBACK)
#define TEXT(FIELD) text(f, n, #FIELD, item->FIELD, sizeof item->FIELD)

static void read_card(card_t *item, char **f, int n) {
    TEXT(uuid); TEXT(name); TEXT(pci);
    NUMBER(memory, ABSENT); NUMBER(reserved, 0); NUMBER(used, 0);
    NUMBER(cc_major, ABSENT); NUMBER(cc_minor, ABSENT);
    NUMBER(minor, 0); NUMBER(lost, 0); NUMBER(sm, 0);
    NUMBER(mig, ABSENT); NUMBER(mig_max, 0);
    NUMBER(recovery_action, ABSENT); NUMBER(remap_pending, ABSENT); NUMBER(remap_failure, 0);
    NUMBER(ecc_uncorrected, ABSENT); NUMBER(events, ABSENT);
}

static void read_instance(instance_t *item, char **f, int n) {
    TEXT(uuid); TEXT(parent); TEXT(name);
    NUMBER(memory, ABSENT); NUMBER(used, 0); NUMBER(gi, 0); NUMBER(ci, 0);
    NUMBER(slices, 1); NUMBER(sm, 0);
}

static void read_nvlink(nvlink_t *item, char **f, int n) {
    TEXT(uuid); TEXT(remote);
    NUMBER(link, 0); NUMBER(active, 1);
}

static void read_pcie(pcie_t *item, char **f, int n) {
    TEXT(a); TEXT(b);
    NUMBER(level, 50);
}

static void read_process(process_t *item, char **f, int n) {
    TEXT(uuid); TEXT(kind); TEXT(cgroup);
    NUMBER(pid, 0); NUMBER(memory, 0); NUMBER(sm, ABSENT); NUMBER(mem, 0); NUMBER(time_us, 0);
}

static void read_fault(fault_t *item, char **f, int n) {
    TEXT(uuid); TEXT(function);
    NUMBER(code, ABSENT);
}

#define READ(WORD, ARRAY, MAX, READER)                                                  \
    if (!strcmp(f[0], WORD) && s->ARRAY##_n < MAX) READER(&s->ARRAY[s->ARRAY##_n++], f, n)

static void read_line(state_t *s, char *line) {
    char *f[FIELDS];
    int n = 0;
    for (char *part = strtok(line, "\t\n"); part && n < FIELDS; part = strtok(NULL, "\t\n"))
        f[n++] = part;
    if (!n) return;
    if (!strcmp(f[0], "node")) {
        text(f, n, "driver", s->driver, sizeof s->driver);
        s->cuda = number(f, n, "cuda", 0);
        s->loads = number(f, n, "loads", 0);
    }
    READ("card", cards, MAX_CARDS, read_card);
    READ("instance", instances, MAX_INSTANCES, read_instance);
    READ("nvlink", links, MAX_LINKS, read_nvlink);
    READ("pcie", pcie, MAX_LINKS, read_pcie);
    READ("process", processes, MAX_PROCESSES, read_process);
    READ("fault", faults, MAX_FAULTS, read_fault);
}

/* 1 where a state is there; an absent file is a machine without the driver. The first line
 * is a generation number: times and inodes repeat when a file is replaced often. */
static int refresh(void) {
    char path[PATH_SIZE], first[64], line[4096], now[sizeof seen];
    FILE *file = fake_path("state", path, sizeof path) ? fopen(path, "re") : NULL;
    if (!file) return 0;
    if (!fgets(first, sizeof first, file)) first[0] = 0;
    snprintf(now, sizeof now, "%s%s", path, first);
    if (!fake_state || strcmp(now, seen)) {
        if (!fake_state && !(fake_state = malloc(sizeof *fake_state))) {
            fclose(file);
            return 0;
        }
        memset(fake_state, 0, sizeof *fake_state);
        while (fgets(line, sizeof line, file)) read_line(fake_state, line);
        memcpy(seen, now, sizeof seen);
    }
    fclose(file);
    return 1;
}

static const fault_t *fault_for(const char *uuid, const char *function) {
    for (int i = 0; i < fake_state->faults_n; i++) {
        const fault_t *fault = &fake_state->faults[i];
        if ((!strcmp(fault->uuid, "*") || !strcmp(fault->uuid, uuid)) &&
            (!strcmp(fault->function, "*") || !strcmp(fault->function, function)))
            return fault;
    }
    return NULL;
}

int fake_begin(const char *uuid, const char *function) {
    for (;;) {
        pthread_mutex_lock(&lock);
        if (!refresh()) return fake_end(DRIVER_NOT_LOADED);
        /* A driver that was loaded anew knows nobody who had opened the one before. */
        if (fake_initialised && fake_state->loads != fake_loads) return fake_end(UNINITIALIZED);
        const fault_t *fault = fault_for(uuid, function);
        if (!fault) return OK;
        if (fault->code != ABSENT) return fake_end((int)fault->code);
        pthread_mutex_unlock(&lock);
        fake_pause();
    }
}

int fake_begin_on(const handle_t *h, const char *function, card_t **card, instance_t **instance) {
    if (!h) return INVALID_ARGUMENT;
    if (!fake_initialised) return UNINITIALIZED;
    int failed = fake_begin(h->uuid, function);
    if (failed) return failed;
    *card = fake_card(h->uuid);
    *instance = fake_instance(h->uuid);
    const card_t *owner = *instance ? fake_card((*instance)->parent) : *card;
    if (!owner || owner->lost) return fake_end(GPU_IS_LOST);
    return OK;
}

int fake_end(int code) {
    pthread_mutex_unlock(&lock);
    return code;
}

card_t *fake_card(const char *uuid) {
    for (int i = 0; i < fake_state->cards_n; i++)
        if (!strcmp(fake_state->cards[i].uuid, uuid)) return &fake_state->cards[i];
    return NULL;
}

instance_t *fake_instance(const char *uuid) {
    for (int i = 0; i < fake_state->instances_n; i++)
        if (!strcmp(fake_state->instances[i].uuid, uuid)) return &fake_state->instances[i];
    return NULL;
}

/* Handles live as long as the process, as NVML's do; called with the lock held. */
handle_t *fake_handle(const char *uuid) {
    for (handle_t *h = handles; h; h = h->next)
        if (!strcmp(h->uuid, uuid)) return h;
    handle_t *h = calloc(1, sizeof *h);
    if (!h) return NULL;
    snprintf(h->uuid, sizeof h->uuid, "%s", uuid);
    h->next = handles;
    handles = h;
    return h;
}

int fake_text(char *out, unsigned size, const char *source) {
    if (!out) return INVALID_ARGUMENT;
    if (strlen(source) + 1 > size) return INSUFFICIENT_SIZE;
    strcpy(out, source);
    return OK;
}

int fake_record(const char *line) {
    char path[PATH_SIZE];
    if (!fake_path("written", path, sizeof path)) return UNKNOWN;
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file < 0) return UNKNOWN;
    ssize_t length = (ssize_t)strlen(line);
    int code = write(file, line, (size_t)length) == length ? OK : UNKNOWN;
    close(file);
    return code;
}
