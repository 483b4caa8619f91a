/* How a card is doing: errors, pending repairs, and events. */
#define _GNU_SOURCE
#include "fake_nvml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { /* NVML field ids */
    FIELD_REMAPPED_PENDING = 144,
    FIELD_REMAPPED_FAILURE = 145,
    FIELD_RECOVERY_ACTION = 230,
};

typedef struct {
    unsigned field, scope;
    long long timestamp, latency_us;
    unsigned type;
    int result;
    union { double d; unsigned ui; unsigned long long ull; } value;
} field_t;

typedef struct {
    handle_t *device;
    unsigned long long type, data;
    unsigned gi, ci;
} event_t;

typedef struct watch { char uuid[UUID_SIZE]; unsigned long long mask; struct watch *next; } watch_t;
typedef struct { long offset; watch_t *watches; } event_set_t;

static void fill(field_t *field, const card_t *card) {
    long long value = field->field == FIELD_RECOVERY_ACTION    ? card->recovery_action
                      : card->remap_pending == ABSENT          ? ABSENT
                      : field->field == FIELD_REMAPPED_PENDING ? card->remap_pending
                      : field->field == FIELD_REMAPPED_FAILURE ? card->remap_failure
                                                               : ABSENT;
    field->result = value == ABSENT ? NOT_SUPPORTED : OK;
    field->type = 1; /* NVML_VALUE_TYPE_UNSIGNED_INT */
    field->value.ull = 0;
    if (value != ABSENT) field->value.ui = (unsigned)value;
}

EXPORT int nvmlDeviceGetFieldValues(handle_t *h, int count, field_t *fields) {
    ON("nvmlDeviceGetFieldValues");
    CARD_ONLY();
    for (int i = 0; i < count; i++) fill(&fields[i], card);
    return fake_end(OK);
}

EXPORT int nvmlDeviceGetRemappedRows(handle_t *h, unsigned *corrected, unsigned *uncorrected,
                                     unsigned *pending, unsigned *failure) {
    ON("nvmlDeviceGetRemappedRows");
    CARD_ONLY();
    if (card->remap_pending == ABSENT) return fake_end(NOT_SUPPORTED);
    *corrected = *uncorrected = 0;
    *pending = (unsigned)card->remap_pending;
    *failure = (unsigned)card->remap_failure;
    return fake_end(OK);
}

EXPORT int nvmlDeviceGetTotalEccErrors(handle_t *h, int type, int counter,
                                       unsigned long long *out) {
    ON("nvmlDeviceGetTotalEccErrors");
    CARD_ONLY();
    (void)counter;
    if (card->ecc_uncorrected == ABSENT) return fake_end(NOT_SUPPORTED);
    *out = type == 1 ? (unsigned long long)card->ecc_uncorrected : 0;
    return fake_end(OK);
}

static long events_size(void) {
    char path[PATH_SIZE];
    struct stat now;
    if (!fake_path("events", path, sizeof path) || stat(path, &now)) return 0;
    return (long)now.st_size;
}

EXPORT int nvmlEventSetCreate(event_set_t **out) {
    int failed = fake_initialised ? fake_begin("-", "nvmlEventSetCreate") : UNINITIALIZED;
    if (failed) return failed;
    *out = calloc(1, sizeof **out);
    if (*out) (*out)->offset = events_size();
    return fake_end(*out ? OK : UNKNOWN);
}

EXPORT int nvmlEventSetFree(event_set_t *set) {
    if (!set) return INVALID_ARGUMENT;
    for (watch_t *w = set->watches, *next; w; w = next) {
        next = w->next;
        free(w);
    }
    free(set);
    return OK;
}

EXPORT int nvmlDeviceGetSupportedEventTypes(handle_t *h, unsigned long long *out) {
    ON("nvmlDeviceGetSupportedEventTypes");
    CARD_ONLY();
    if (card->events == ABSENT) return fake_end(NOT_SUPPORTED);
    *out = (unsigned long long)card->events;
    return fake_end(OK);
}

EXPORT int nvmlDeviceRegisterEvents(handle_t *h, unsigned long long mask, event_set_t *set) {
    ON("nvmlDeviceRegisterEvents");
    CARD_ONLY();
    if (!set) return fake_end(INVALID_ARGUMENT);
    if (card->events == ABSENT || (mask & ~(unsigned long long)card->events))
        return fake_end(NOT_SUPPORTED);
    watch_t *w = calloc(1, sizeof *w);
    if (!w) return fake_end(UNKNOWN);
    snprintf(w->uuid, sizeof w->uuid, "%s", h->uuid);
    w->mask = mask;
    w->next = set->watches;
    set->watches = w;
    return fake_end(OK);
}

static int wanted(const event_set_t *set, const char *uuid, unsigned long long type) {
    for (const watch_t *w = set->watches; w; w = w->next)
        if (!strcmp(w->uuid, uuid) && (w->mask & type)) return 1;
    return 0;
}

/* The next event of this set after its offset; 0 where there is none yet. */
static int take(event_set_t *set, event_t *out) {
    char path[PATH_SIZE], line[512], uuid[UUID_SIZE];
    FILE *file = fake_path("events", path, sizeof path) ? fopen(path, "re") : NULL;
    int found = 0;
    if (!file) return 0;
    fseek(file, set->offset, SEEK_SET);
    while (!found && fgets(line, sizeof line, file) && strchr(line, '\n')) {
        set->offset = ftell(file);
        if (sscanf(line, "%95s %llu %llu %u %u", uuid, &out->type, &out->data, &out->gi,
                   &out->ci) == 5 && wanted(set, uuid, out->type)) {
            out->device = fake_handle(uuid);
            found = 1;
        }
    }
    fclose(file);
    return found;
}

static long long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

EXPORT int nvmlEventSetWait_v2(event_set_t *set, event_t *out, unsigned timeout_ms) {
    long long end = now_ms() + timeout_ms;
    if (!set) return INVALID_ARGUMENT;
    for (;;) {
        int failed = fake_initialised ? fake_begin("-", "nvmlEventSetWait_v2") : UNINITIALIZED;
        if (failed) return failed;
        if (take(set, out)) return fake_end(OK);
        fake_end(OK);
        if (now_ms() >= end) return TIMEOUT;
        fake_pause();
    }
}
