/* What a card is: names, memory, place in the machine, MIG. */
#define _GNU_SOURCE
#include "fake_nvml.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[PCI_SIZE];
} pci_t;

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2_t;

typedef struct {
    unsigned multiprocessors, copy_engines, decoders, encoders, jpeg, ofa, gi_slices, ci_slices;
    unsigned long long memory_mb;
} attributes_t;

EXPORT int nvmlDeviceGetUUID(handle_t *h, char *out, unsigned size) {
    ON("nvmlDeviceGetUUID");
    return fake_end(fake_text(out, size, h->uuid));
}

EXPORT int nvmlDeviceGetName(handle_t *h, char *out, unsigned size) {
    ON("nvmlDeviceGetName");
    return fake_end(fake_text(out, size, card ? card->name : instance->name));
}

EXPORT int nvmlDeviceGetIndex(handle_t *h, unsigned *out) {
    ON("nvmlDeviceGetIndex");
    CARD_ONLY();
    *out = (unsigned)(card - fake_state->cards);
    return fake_end(OK);
}

EXPORT int nvmlDeviceGetMinorNumber(handle_t *h, unsigned *out) {
    ON("nvmlDeviceGetMinorNumber");
    CARD_ONLY();
    *out = (unsigned)card->minor;
    return fake_end(OK);
}

EXPORT int nvmlDeviceGetMemoryInfo(handle_t *h, memory_t *out) {
    ON("nvmlDeviceGetMemoryInfo");
    long long total = card ? card->memory : instance->memory;
    long long used = card ? card->used + card->reserved : instance->used;
    if (total == ABSENT) return fake_end(NOT_SUPPORTED);
    *out = (memory_t){(unsigned long long)total, (unsigned long long)(total - used),
                      (unsigned long long)used};
    return fake_end(OK);
}

EXPORT int nvmlDeviceGetMemoryInfo_v2(handle_t *h, memory_v2_t *out) {
    ON("nvmlDeviceGetMemoryInfo_v2");
    long long total = card ? card->memory : instance->memory;
    long long used = card ? card->used : instance->used;
    long long reserved = card ? card->reserved : 0;
    if (total == ABSENT) return fake_end(NOT_SUPPORTED);
    *out = (memory_v2_t){out->version, (unsigned long long)total, (unsigned long long)reserved,
                         (unsigned long long)(total - used - reserved), (unsigned long long)used};
    return fake_end(OK);
}

EXPORT int nvmlDeviceGetCudaComputeCapability(handle_t *h, int *major, int *minor) {
    ON("nvmlDeviceGetCudaComputeCapability");
    if (!card) card = fake_card(instance->parent);
    if (card->cc_major == ABSENT) return fake_end(NOT_SUPPORTED);
    *major = (int)card->cc_major;
    *minor = (int)card->cc_minor;
    return fake_end(OK);
}

static void fill_pci(pci_t *out, const char *text) {
    memset(out, 0, sizeof *out);
    snprintf(out->bus_id, sizeof out->bus_id, "%s", text);
    if (sscanf(text, "%x:%x:%x", &out->domain, &out->bus, &out->device) == 3)
        snprintf(out->bus_id_legacy, sizeof out->bus_id_legacy, "%04X:%02X:%02X.0",
                 out->domain & 0xffff, out->bus & 0xff, out->device & 0xff);
}

EXPORT int nvmlDeviceGetPciInfo_v3(handle_t *h, pci_t *out) {
    ON("nvmlDeviceGetPciInfo_v3");
    CARD_ONLY();
    if (!*card->pci) return fake_end(NOT_SUPPORTED);
    fill_pci(out, card->pci);
    return fake_end(OK);
}

EXPORT int nvmlDeviceGetTopologyCommonAncestor(handle_t *h, handle_t *other, unsigned *out) {
    ON("nvmlDeviceGetTopologyCommonAncestor");
    CARD_ONLY();
    if (!other || !fake_card(other->uuid)) return fake_end(INVALID_ARGUMENT);
    *out = 50; /* NVML_TOPOLOGY_SYSTEM: across sockets, where nothing else was said */
    for (int i = 0; i < fake_state->pcie_n; i++) {
        const pcie_t *p = &fake_state->pcie[i];
        if ((!strcmp(p->a, h->uuid) && !strcmp(p->b, other->uuid)) ||
            (!strcmp(p->b, h->uuid) && !strcmp(p->a, other->uuid)))
            *out = (unsigned)p->level;
    }
    return fake_end(OK);
}

static const nvlink_t *link_of(const char *uuid, unsigned link) {
    for (int i = 0; i < fake_state->links_n; i++)
        if (!strcmp(fake_state->links[i].uuid, uuid) && fake_state->links[i].link == link)
            return &fake_state->links[i];
    return NULL;
}

EXPORT int nvmlDeviceGetNvLinkState(handle_t *h, unsigned link, unsigned *active) {
    ON("nvmlDeviceGetNvLinkState");
    CARD_ONLY();
    const nvlink_t *found = link_of(h->uuid, link);
    if (!found) return fake_end(NOT_SUPPORTED);
    *active = (unsigned)found->active;
    return fake_end(OK);
}

EXPORT int nvmlDeviceGetNvLinkRemotePciInfo_v2(handle_t *h, unsigned link, pci_t *out) {
    ON("nvmlDeviceGetNvLinkRemotePciInfo_v2");
    CARD_ONLY();
    const nvlink_t *found = link_of(h->uuid, link);
    if (!found) return fake_end(NOT_SUPPORTED);
    fill_pci(out, strcmp(found->remote, "switch") ? found->remote : "00000000:F0:00.0");
    return fake_end(OK);
}

EXPORT int nvmlDeviceGetNvLinkRemoteDeviceType(handle_t *h, unsigned link, unsigned *out) {
    ON("nvmlDeviceGetNvLinkRemoteDeviceType");
    CARD_ONLY();
    const nvlink_t *found = link_of(h->uuid, link);
    if (!found) return fake_end(NOT_SUPPORTED);
    *out = strcmp(found->remote, "switch") ? 0 : 2; /* NVML_NVLINK_DEVICE_TYPE_GPU, _SWITCH */
    return fake_end(OK);
}

EXPORT int nvmlDeviceGetMigMode(handle_t *h, unsigned *current, unsigned *pending) {
    ON("nvmlDeviceGetMigMode");
    CARD_ONLY();
    if (card->mig == ABSENT) return fake_end(NOT_SUPPORTED);
    *current = *pending = (unsigned)card->mig;
    return fake_end(OK);
}

EXPORT int nvmlDeviceGetMaxMigDeviceCount(handle_t *h, unsigned *out) {
    ON("nvmlDeviceGetMaxMigDeviceCount");
    CARD_ONLY();
    *out = (unsigned)card->mig_max;
    return fake_end(OK);
}

EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(handle_t *h, unsigned index, handle_t **out) {
    ON("nvmlDeviceGetMigDeviceHandleByIndex");
    CARD_ONLY();
    for (int i = 0; i < fake_state->instances_n; i++)
        if (!strcmp(fake_state->instances[i].parent, h->uuid) && !index--) {
            *out = fake_handle(fake_state->instances[i].uuid);
            return fake_end(*out ? OK : UNKNOWN);
        }
    return fake_end(NOT_FOUND);
}

EXPORT int nvmlDeviceIsMigDeviceHandle(handle_t *h, unsigned *out) {
    ON("nvmlDeviceIsMigDeviceHandle");
    *out = instance != NULL;
    return fake_end(OK);
}

EXPORT int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle_t *h, handle_t **out) {
    ON("nvmlDeviceGetDeviceHandleFromMigDeviceHandle");
    if (!instance) return fake_end(INVALID_ARGUMENT);
    *out = fake_handle(instance->parent);
    return fake_end(*out ? OK : UNKNOWN);
}

EXPORT int nvmlDeviceGetGpuInstanceId(handle_t *h, unsigned *out) {
    ON("nvmlDeviceGetGpuInstanceId");
    if (!instance) return fake_end(INVALID_ARGUMENT);
    *out = (unsigned)instance->gi;
    return fake_end(OK);
}

EXPORT int nvmlDeviceGetComputeInstanceId(handle_t *h, unsigned *out) {
    ON("nvmlDeviceGetComputeInstanceId");
    if (!instance) return fake_end(INVALID_ARGUMENT);
    *out = (unsigned)instance->ci;
    return fake_end(OK);
}

EXPORT int nvmlDeviceGetAttributes_v2(handle_t *h, attributes_t *out) {
    ON("nvmlDeviceGetAttributes_v2");
    if (!instance) return fake_end(NOT_SUPPORTED);
    memset(out, 0, sizeof *out);
    out->multiprocessors = (unsigned)instance->sm;
    out->gi_slices = out->ci_slices = (unsigned)instance->slices;
    out->memory_mb = (unsigned long long)instance->memory >> 20;
    return fake_end(OK);
}
