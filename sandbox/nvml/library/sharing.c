/* Who uses a card, and what a caller may set: compute mode, memory limits of cgroups. */
#define _GNU_SOURCE
#include "fake_nvml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LIMIT_MAX 0xFFFFFFFFFFFFFFFFULL
#define FIRST_DRIVER_WITH_LIMITS 615

typedef struct { unsigned pid; unsigned long long memory; unsigned gi, ci; } process_info_t;
typedef struct {
    unsigned pid;
    unsigned long long time;
    unsigned sm, memory, encoder, decoder;
} sample_t;
typedef struct { const char *cgroup; unsigned long long soft, hard; } set_limits_t;
typedef struct { const char *cgroup; unsigned long long soft, hard, used; } get_limits_t;

static int list(handle_t *h, const char *kind, unsigned *count, process_info_t *out) {
    const instance_t *instance = fake_instance(h->uuid);
    unsigned n = 0, room = *count;
    for (int i = 0; i < fake_state->processes_n; i++) {
        const process_t *p = &fake_state->processes[i];
        if (strcmp(p->uuid, h->uuid) || strcmp(p->kind, kind)) continue;
        if (out && n < room)
            out[n] = (process_info_t){(unsigned)p->pid, (unsigned long long)p->memory,
                                      instance ? (unsigned)instance->gi : 0xFFFFFFFF,
                                      instance ? (unsigned)instance->ci : 0xFFFFFFFF};
        n++;
    }
    *count = n;
    return n > room || (n && !out) ? INSUFFICIENT_SIZE : OK;
}

EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(handle_t *h, unsigned *count,
                                                   process_info_t *out) {
    ON("nvmlDeviceGetComputeRunningProcesses_v3");
    return fake_end(list(h, "compute", count, out));
}

EXPORT int nvmlDeviceGetMPSComputeRunningProcesses_v3(handle_t *h, unsigned *count,
                                                      process_info_t *out) {
    ON("nvmlDeviceGetMPSComputeRunningProcesses_v3");
    return fake_end(list(h, "mps", count, out));
}

EXPORT int nvmlDeviceGetProcessUtilization(handle_t *h, sample_t *out, unsigned *count,
                                           unsigned long long since) {
    ON("nvmlDeviceGetProcessUtilization");
    if (instance) return fake_end(NOT_SUPPORTED);
    unsigned n = 0, room = *count;
    for (int i = 0; i < fake_state->processes_n; i++) {
        const process_t *p = &fake_state->processes[i];
        if (strcmp(p->uuid, h->uuid) || p->sm == ABSENT) continue;
        if ((unsigned long long)p->time_us <= since) continue;
        if (out && n < room)
            out[n] = (sample_t){(unsigned)p->pid, (unsigned long long)p->time_us, (unsigned)p->sm,
                                (unsigned)p->mem, 0, 0};
        n++;
    }
    *count = n;
    if (!n) return fake_end(NOT_FOUND);
    return fake_end(!out || n > room ? INSUFFICIENT_SIZE : OK);
}

/* What was written last; called with the lock held. */
static int compute_mode(const char *uuid) {
    char path[PATH_SIZE], line[4096], who[UUID_SIZE];
    int mode = 0, value;
    FILE *file = fake_path("written", path, sizeof path) ? fopen(path, "re") : NULL;
    if (!file) return 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "compute-mode %95s %d", who, &value) == 2 && !strcmp(who, uuid))
            mode = value;
    fclose(file);
    return mode;
}

EXPORT int nvmlDeviceGetComputeMode(handle_t *h, unsigned *out) {
    ON("nvmlDeviceGetComputeMode");
    CARD_ONLY();
    *out = (unsigned)compute_mode(h->uuid);
    return fake_end(OK);
}

EXPORT int nvmlDeviceSetComputeMode(handle_t *h, unsigned mode) {
    char line[256];
    ON("nvmlDeviceSetComputeMode");
    CARD_ONLY();
    if (mode > 3 || mode == 1) return fake_end(INVALID_ARGUMENT);
    snprintf(line, sizeof line, "compute-mode %s %u\n", h->uuid, mode);
    return fake_end(fake_record(line));
}

static int limits_possible(const card_t *card, const char *cgroup, struct stat *directory) {
    if (atoi(fake_state->driver) < FIRST_DRIVER_WITH_LIMITS) return FUNCTION_NOT_FOUND;
    if (!card || card->mig == 1) return NOT_SUPPORTED;
    if (!cgroup || *cgroup != '/') return INVALID_ARGUMENT;
    if (stat(cgroup, directory) || !S_ISDIR(directory->st_mode)) return NOT_FOUND;
    return OK;
}

EXPORT int nvmlDeviceSetMemoryLimits_v1(handle_t *h, set_limits_t *in) {
    char line[PATH_SIZE + 256];
    struct stat directory;
    ON("nvmlDeviceSetMemoryLimits_v1");
    int impossible = limits_possible(card, in->cgroup, &directory);
    if (impossible) return fake_end(impossible);
    if (in->soft > in->hard) return fake_end(INVALID_ARGUMENT);
    /* The inode ends a limit with its cgroup, as the driver does. */
    snprintf(line, sizeof line, "limit %s %llu %llu %lu %s\n", h->uuid, in->soft, in->hard,
             (unsigned long)directory.st_ino, in->cgroup);
    return fake_end(fake_record(line));
}

static unsigned long long used_by(const char *uuid, const char *cgroup) {
    unsigned long long sum = 0;
    size_t length = strlen(cgroup);
    for (int i = 0; i < fake_state->processes_n; i++) {
        const process_t *p = &fake_state->processes[i];
        if (!strcmp(p->uuid, uuid) && !strncmp(p->cgroup, cgroup, length) &&
            (!p->cgroup[length] || p->cgroup[length] == '/'))
            sum += (unsigned long long)p->memory;
    }
    return sum;
}

EXPORT int nvmlDeviceGetMemoryLimits_v1(handle_t *h, get_limits_t *out) {
    char path[PATH_SIZE], line[PATH_SIZE + 256], who[UUID_SIZE], cgroup[PATH_SIZE];
    unsigned long long soft, hard;
    unsigned long inode;
    struct stat directory;
    ON("nvmlDeviceGetMemoryLimits_v1");
    int impossible = limits_possible(card, out->cgroup, &directory);
    if (impossible) return fake_end(impossible);
    out->soft = 0;
    out->hard = LIMIT_MAX;
    out->used = used_by(h->uuid, out->cgroup);
    FILE *file = fake_path("written", path, sizeof path) ? fopen(path, "re") : NULL;
    if (!file) return fake_end(OK);
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "limit %95s %llu %llu %lu %1023[^\n]", who, &soft, &hard, &inode,
                   cgroup) == 5 && !strcmp(who, h->uuid) && !strcmp(cgroup, out->cgroup) &&
            inode == (unsigned long)directory.st_ino) {
            out->soft = soft;
            out->hard = hard;
        }
    fclose(file);
    return fake_end(OK);
}
