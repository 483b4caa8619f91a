/* What the parts of the stand-in libnvidia-ml.so.1 share.
 *
 * Types and numbers follow NVIDIA's public NVML API reference
 * (https://docs.nvidia.com/deploy/nvml-api/) and the structures that nvidia-ml-py 13.615.71
 * passes; nothing is taken from NVIDIA's header.
 */
#ifndef FAKE_NVML_H
#define FAKE_NVML_H

#include <stddef.h>

#define EXPORT __attribute__((visibility("default")))

enum {
    OK = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NO_PERMISSION = 4,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    TIMEOUT = 10,
    FUNCTION_NOT_FOUND = 13,
    GPU_IS_LOST = 15,
    UNKNOWN = 999,
};

#define UUID_SIZE 96
#define NAME_SIZE 96
#define PCI_SIZE 32
#define PATH_SIZE 1024
#define MAX_CARDS 64
#define MAX_INSTANCES 256
#define MAX_LINKS 1024
#define MAX_PROCESSES 2048
#define MAX_FAULTS 256
/* A value the configuration did not give; the function that needs it answers NOT_SUPPORTED. */
#define ABSENT (-1LL)

typedef struct {
    char uuid[UUID_SIZE], name[NAME_SIZE], pci[PCI_SIZE];
    long long memory, reserved, used; /* bytes */
    long long cc_major, cc_minor, minor, lost, sm;
    long long mig, mig_max;           /* mode now; instances at most */
    long long recovery_action, remap_pending, remap_failure, ecc_uncorrected;
    long long events;                 /* mask of supported event types */
} card_t;

typedef struct {
    char uuid[UUID_SIZE], parent[UUID_SIZE], name[NAME_SIZE];
    long long memory, used, gi, ci, slices, sm;
} instance_t;

typedef struct {
    char uuid[UUID_SIZE], remote[PCI_SIZE]; /* remote "switch" is an NVSwitch */
    long long link, active;
} nvlink_t;

typedef struct {
    char a[UUID_SIZE], b[UUID_SIZE];
    long long level;
} pcie_t;

typedef struct {
    char uuid[UUID_SIZE], kind[16], cgroup[256];
    long long pid, memory, sm, mem, time_us;
} process_t;

typedef struct {
    char uuid[UUID_SIZE], function[64]; /* either may be "*" */
    long long code;                     /* ABSENT: the call hangs until the line is gone */
} fault_t;

typedef struct {
    char driver[80];
    long long cuda, loads; /* how often the driver was loaded anew */
    int cards_n, instances_n, links_n, pcie_n, processes_n, faults_n;
    card_t cards[MAX_CARDS];
    instance_t instances[MAX_INSTANCES];
    nvlink_t links[MAX_LINKS];
    pcie_t pcie[MAX_LINKS];
    process_t processes[MAX_PROCESSES];
    fault_t faults[MAX_FAULTS];
} state_t;

/* A handle names a card or an instance; what it stands for is looked up at every call. */
typedef struct handle { char uuid[UUID_SIZE]; struct handle *next; } handle_t;

extern int fake_initialised;
extern long long fake_loads; /* of the driver that was initialised */
extern state_t *fake_state;

/* Path of a file in the control directory; NULL where none is configured. */
const char *fake_path(const char *file, char *out, size_t size);
/* Lock and read the state if it changed; OK with the lock held, else an error without it. */
int fake_begin(const char *uuid, const char *function);
/* As fake_begin, for a call on a handle; *card or *instance is set, the other NULL. */
int fake_begin_on(const handle_t *h, const char *function, card_t **card, instance_t **instance);
int fake_end(int code);

card_t *fake_card(const char *uuid);
instance_t *fake_instance(const char *uuid);
handle_t *fake_handle(const char *uuid);
int fake_text(char *out, unsigned size, const char *text);
/* Append one line to the log of what callers wrote. */
int fake_record(const char *line);
void fake_pause(void);

#define ON(FUNCTION)                                                                    \
    card_t *card = NULL;                                                                \
    instance_t *instance = NULL;                                                        \
    int failed = fake_begin_on(h, FUNCTION, &card, &instance);                          \
    if (failed) return failed;                                                          \
    (void)card;                                                                         \
    (void)instance

#define CARD_ONLY() if (!card) return fake_end(INVALID_ARGUMENT)

#endif
