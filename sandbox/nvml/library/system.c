/* The library itself, the driver's version, and handles. */
#include "fake_nvml.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

EXPORT int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    int failed = fake_begin("-", "nvmlInitWithFlags");
    if (failed) return failed;
    fake_initialised++;
    fake_loads = fake_state->loads;
    return fake_end(OK);
}

EXPORT int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

EXPORT int nvmlShutdown(void) {
    if (!fake_initialised) return UNINITIALIZED;
    fake_initialised--;
    return OK;
}

EXPORT const char *nvmlErrorString(int code) {
    switch (code) {
    case OK: return "The operation was successful";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case NOT_SUPPORTED: return "Not Supported";
    case GPU_IS_LOST: return "GPU is lost";
    default: return "Unknown Error";
    }
}

static int begin_system(const char *function) {
    return fake_initialised ? fake_begin("-", function) : UNINITIALIZED;
}

EXPORT int nvmlSystemGetDriverVersion(char *out, unsigned size) {
    int failed = begin_system("nvmlSystemGetDriverVersion");
    return failed ? failed : fake_end(fake_text(out, size, fake_state->driver));
}

EXPORT int nvmlSystemGetCudaDriverVersion(int *out) {
    int failed = begin_system("nvmlSystemGetCudaDriverVersion");
    if (failed) return failed;
    *out = (int)fake_state->cuda;
    return fake_end(OK);
}

EXPORT int nvmlDeviceGetCount_v2(unsigned *out) {
    int failed = begin_system("nvmlDeviceGetCount_v2");
    if (failed) return failed;
    *out = (unsigned)fake_state->cards_n;
    return fake_end(OK);
}

static int begin_lookup(const char *uuid, const char *function) {
    if (!fake_initialised) return UNINITIALIZED;
    return fake_begin(uuid, function);
}

static int give(const char *uuid, handle_t **out) {
    const card_t *card = fake_card(uuid);
    const instance_t *instance = fake_instance(uuid);
    if (!card && instance) card = fake_card(instance->parent);
    if (!card) return fake_end(NOT_FOUND);
    if (card->lost) return fake_end(GPU_IS_LOST);
    *out = fake_handle(uuid);
    return fake_end(*out ? OK : UNKNOWN);
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle_t **out) {
    char uuid[UUID_SIZE];
    int failed = begin_system("nvmlDeviceGetHandleByIndex_v2");
    if (failed) return failed;
    if (index >= (unsigned)fake_state->cards_n) return fake_end(INVALID_ARGUMENT);
    strcpy(uuid, fake_state->cards[index].uuid);
    fake_end(OK);
    failed = begin_lookup(uuid, "nvmlDeviceGetHandleByIndex_v2");
    return failed ? failed : give(uuid, out);
}

EXPORT int nvmlDeviceGetHandleByUUID(const char *uuid, handle_t **out) {
    if (!uuid) return INVALID_ARGUMENT;
    int failed = begin_lookup(uuid, "nvmlDeviceGetHandleByUUID");
    return failed ? failed : give(uuid, out);
}

EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, handle_t **out) {
    int failed = begin_system("nvmlDeviceGetHandleByPciBusId_v2");
    if (failed) return failed;
    for (int i = 0; i < fake_state->cards_n; i++)
        if (!strcasecmp(fake_state->cards[i].pci, pci)) return give(fake_state->cards[i].uuid, out);
    return fake_end(NOT_FOUND);
}
