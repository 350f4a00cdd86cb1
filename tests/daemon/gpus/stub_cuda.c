/* A CUDA driver without a GPU: its memory is this process's own, STUB says what is wrong with it, and
   STUB_MIB how much there is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static size_t given;
static char *first;

static int is(const char *fault) {
    const char *asked = getenv("STUB");
    return asked != NULL && strcmp(asked, fault) == 0;
}

static size_t room(void) {
    const char *mib = getenv("STUB_MIB");
    return (mib != NULL ? strtoul(mib, NULL, 10) : 3) * 1024 * 1024;
}

int cuInit(unsigned flags) {
    while (is("hangs"))
        pause();
    return is("no device") ? 100 : is("mismatch") ? 803 : 0;
}

int cuDeviceGet(int *device, int ordinal) {
    *device = 7 + ordinal;
    return 0;
}

int cuDeviceGetUuid(unsigned char *uuid, int device) {
    for (int byte = 0; byte < 16; byte++)
        uuid[byte] = is("another") ? 9 : byte;
    return device == 7 ? 0 : 101;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = &given;
    return device != 7 ? 101 : is("exclusive") ? 46 : 0;
}

int cuCtxSetCurrent(void *context) { return context == &given ? 0 : 201; }

int cuCtxSynchronize(void) { return 0; }

int cuMemGetInfo_v2(size_t *free, size_t *total) {
    *free = is("full") ? 0 : room();
    *total = room();
    return 0;
}

int cuMemAlloc_v2(unsigned long long *memory, size_t size) {
    if (given + size > (is("taken") ? room() / 2 : room()))
        return 2;
    given += size;
    char *new = is("alias") && first != NULL ? first : malloc(size);
    first = first != NULL ? first : new;
    *memory = (unsigned long long)new;
    return 0;
}

int cuMemsetD32_v2(unsigned long long memory, unsigned pattern, size_t words) {
    unsigned *word = (unsigned *)memory;
    for (size_t n = 0; n < words; n++)
        word[n] = is("stuck") ? pattern | 4 : pattern;
    return 0;
}

int cuMemcpyDtoH_v2(void *host, unsigned long long memory, size_t size) {
    memcpy(host, (char *)memory, size);
    if (is("flips"))
        ((char *)host)[size / 2] ^= 16;
    return is("ecc") ? 214 : is("odd") ? 700 : 0;
}

int cuMemcpyDtoD_v2(unsigned long long to, unsigned long long from, size_t size) {
    memcpy((char *)to, (char *)from, size);
    return 0;
}

int cuGetErrorName(int code, const char **name) {
    *name = code == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : NULL;
    return 0;
}
