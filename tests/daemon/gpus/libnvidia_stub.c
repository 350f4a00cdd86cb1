/* A libnvidia-ml.so.1 of two GPUs, for tests that go all the way through the dynamic linker.
 *
 * What it is told, by environment:
 *   STUB_INIT     the error that initialising gives
 *   STUB_HANG     a file: while it exists, asking for memory does not return
 *   STUB_LOST     the number of a GPU that has fallen off the bus
 *   STUB_PIDS     the processes on the first GPU, "100,101", each with 1 GiB
 *   STUB_STRIDE2, STUB_STRIDE3
 *                 bytes from one record of a process to the next, in the second and in the third
 *                 version of the call: 16 as before driver 470, 24, or 32 as with driver 535.43
 *   STUB_XID      an error that has befallen the second GPU
 * and by macro, which symbols it lacks: WITHOUT_V3, WITHOUT_MEMORY_V2.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SUCCESS = 0,
    INVALID_ARGUMENT = 2,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    TIMEOUT = 10,
    GPU_IS_LOST = 15,
};

#define GIB (1024ull * 1024 * 1024)
#define MIB (1024ull * 1024)
#define XID_CRITICAL_ERROR 8ull

struct gpu { unsigned number; unsigned bus; const char *uuid; };
static struct gpu gpus[2] = {{0, 0x65, "GPU-stub-1"}, {1, 0x17, "GPU-stub-0"}};

struct memory { uint64_t total, free, used; };
struct memory_v2 { uint32_t version; uint64_t total, reserved, free, used; };
struct rates { uint32_t gpu, memory; };
struct event { void *device; uint64_t type, data; uint32_t gpu_instance, compute_instance; };
struct pci {
    char legacy_id[16];
    uint32_t domain, bus, device, device_id, subsystem_id;
    char id[32];
};

static unsigned number_from(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);
    return text ? (unsigned)atoi(text) : otherwise;
}

static int check(const struct gpu *gpu)
{
    const char *hang = getenv("STUB_HANG");
    while (hang && access(hang, F_OK) == 0)
        usleep(10000);
    return number_from("STUB_LOST", 99) == gpu->number ? GPU_IS_LOST : SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return number_from("STUB_INIT", SUCCESS); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int error) { (void)error; return "an error of the stub"; }

int nvmlDeviceGetCount_v2(uint32_t *count) { *count = 2; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(uint32_t index, struct gpu **handle)
{
    if (index > 1)
        return INVALID_ARGUMENT;
    *handle = &gpus[index];
    return SUCCESS;
}

int nvmlDeviceGetUUID(struct gpu *gpu, char *text, uint32_t length)
{
    snprintf(text, length, "%s", gpu->uuid);
    return SUCCESS;
}

int nvmlDeviceGetName(struct gpu *gpu, char *text, uint32_t length)
{
    (void)gpu;
    snprintf(text, length, "NVIDIA Stub");
    return SUCCESS;
}

int nvmlDeviceGetPciInfo_v3(struct gpu *gpu, struct pci *pci)
{
    memset(pci, 0, sizeof *pci);
    pci->bus = gpu->bus;
    snprintf(pci->id, sizeof pci->id, "00000000:%02X:00.0", gpu->bus);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(struct gpu *gpu, struct memory *memory)
{
    memory->total = 80 * GIB;
    memory->used = 3 * GIB + 600 * MIB;
    memory->free = memory->total - memory->used;
    return check(gpu);
}

#ifndef WITHOUT_MEMORY_V2
int nvmlDeviceGetMemoryInfo_v2(struct gpu *gpu, struct memory_v2 *memory)
{
    if (memory->version != (sizeof *memory | 2 << 24))
        return INVALID_ARGUMENT;
    memory->total = 80 * GIB;
    memory->reserved = 600 * MIB;
    memory->used = 3 * GIB;
    memory->free = memory->total - memory->used - memory->reserved;
    return check(gpu);
}
#endif

int nvmlDeviceGetUtilizationRates(struct gpu *gpu, struct rates *rates)
{
    (void)gpu;
    rates->gpu = 37;
    return SUCCESS;
}

static int list(struct gpu *gpu, uint32_t *count, char *records, unsigned stride)
{
    char text[256] = "";
    unsigned space = *count;
    if (getenv("STUB_PIDS") && gpu->number == 0)
        snprintf(text, sizeof text, "%s", getenv("STUB_PIDS"));
    *count = 0;
    for (char *rest = text, *one; (one = strsep(&rest, ",")) && *one; ++*count) {
        uint32_t pid = atoi(one);
        uint64_t memory = GIB;
        if (*count >= space)
            continue;
        memcpy(records + *count * stride, &pid, sizeof pid);
        memcpy(records + *count * stride + 8, &memory, sizeof memory);
    }
    return *count > space ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v2(struct gpu *gpu, uint32_t *count, char *records)
{
    return list(gpu, count, records, number_from("STUB_STRIDE2", 24));
}

#ifndef WITHOUT_V3
int nvmlDeviceGetComputeRunningProcesses_v3(struct gpu *gpu, uint32_t *count, char *records)
{
    return list(gpu, count, records, number_from("STUB_STRIDE3", 24));
}
#endif

int nvmlEventSetCreate(void **set) { static char one; *set = &one; return SUCCESS; }
int nvmlEventSetFree(void *set) { (void)set; return SUCCESS; }

int nvmlDeviceGetSupportedEventTypes(struct gpu *gpu, uint64_t *types)
{
    (void)gpu;
    *types = XID_CRITICAL_ERROR;
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(struct gpu *gpu, uint64_t types, void *set)
{
    (void)gpu;
    (void)set;
    return types == XID_CRITICAL_ERROR ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlEventSetWait_v2(void *set, struct event *event, uint32_t timeout_ms)
{
    static int told;
    (void)set;
    if (timeout_ms || told || !getenv("STUB_XID"))
        return TIMEOUT;
    told = 1;
    *event = (struct event){&gpus[1], XID_CRITICAL_ERROR, number_from("STUB_XID", 0), ~0u, ~0u};
    return SUCCESS;
}
