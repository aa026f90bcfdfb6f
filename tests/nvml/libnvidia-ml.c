/* A stand-in for libnvidia-ml.so.1, so that the real bindings run on a machine without a GPU.
 *
 * It reads the file that NVML_STANDIN names at every call. One line a device:
 *     name uuid total_bytes used_bytes utilisation temperature_c power_mw error [pid:bytes ...]
 * `error` is an nvmlReturn_t that every call on the device returns, 0 = healthy. A first line
 * "init CODE" makes nvmlInitWithFlags return CODE. "hang SECONDS" makes every device call sleep.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_DEVICES 8
#define MAX_PROCESSES 16

enum { OK = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9 };

typedef struct {
    char name[64], uuid[96];
    unsigned long long total, used;
    unsigned utilisation, temperature, power_mw, error, processes;
    unsigned pids[MAX_PROCESSES];
    unsigned long long bytes[MAX_PROCESSES];
} Device;

typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } ProcessInfo;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilisation;

static Device devices[MAX_DEVICES];
static unsigned count, hang_s;
static int init_code;

static void parse_device(char *line) {
    Device *d = &devices[count];
    int at = 0;
    memset(d, 0, sizeof *d);
    if (sscanf(line, "%63s %95s %llu %llu %u %u %u %u %n", d->name, d->uuid, &d->total, &d->used,
               &d->utilisation, &d->temperature, &d->power_mw, &d->error, &at) < 8) return;
    for (char *p = strtok(line + at, " \n"); p && d->processes < MAX_PROCESSES; p = strtok(NULL, " \n"))
        if (sscanf(p, "%u:%llu", &d->pids[d->processes], &d->bytes[d->processes]) == 2) d->processes++;
    count++;
}

static void load(void) {
    const char *path = getenv("NVML_STANDIN");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[2048];
    count = hang_s = 0;
    init_code = file ? OK : DRIVER_NOT_LOADED;
    if (!file) return;
    while (fgets(line, sizeof line, file) && count < MAX_DEVICES) {
        if (sscanf(line, "init %d", &init_code) == 1 || sscanf(line, "hang %u", &hang_s) == 1) continue;
        parse_device(line);
    }
    fclose(file);
}

static Device *device(void *handle, int *error) {
    unsigned index = (unsigned)(size_t)handle - 1;
    load();
    if (hang_s) sleep(hang_s);
    *error = index < count ? (int)devices[index].error : INVALID_ARGUMENT;
    return index < count ? &devices[index] : NULL;
}

#define DEVICE(d) int error; Device *d = device(handle, &error); if (error) return error

int nvmlInitWithFlags(unsigned flags) { (void)flags; load(); return init_code; }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { return code == 15 ? "GPU is lost" : "stand-in error"; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "550.54.15"); return OK; }
int nvmlSystemGetCudaDriverVersion(int *version) { *version = 12040; return OK; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { return nvmlSystemGetCudaDriverVersion(version); }
int nvmlDeviceGetCount_v2(unsigned *number) { load(); *number = count; return OK; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    load();
    if (index >= count) return INVALID_ARGUMENT;
    *handle = (void *)(size_t)(index + 1);
    return (int)devices[index].error;
}

int nvmlDeviceGetName(void *handle, char *text, unsigned size) {
    DEVICE(d);
    snprintf(text, size, "%s", d->name);
    return OK;
}

int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) {
    DEVICE(d);
    snprintf(text, size, "%s", d->uuid);
    return OK;
}

int nvmlDeviceGetMemoryInfo(void *handle, Memory *memory) {
    DEVICE(d);
    memory->total = d->total;
    memory->used = d->used;
    memory->free = d->total - d->used;
    return OK;
}

int nvmlDeviceGetUtilizationRates(void *handle, Utilisation *rates) {
    DEVICE(d);
    rates->gpu = d->utilisation;
    rates->memory = 0;
    return OK;
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius) {
    DEVICE(d);
    (void)sensor;
    *celsius = d->temperature;
    return OK;
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) {
    DEVICE(d);
    if (!d->power_mw) return NOT_SUPPORTED;
    *milliwatts = d->power_mw;
    return OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *number, ProcessInfo *infos) {
    DEVICE(d);
    unsigned room = infos ? *number : 0;
    *number = d->processes;
    if (d->processes > room) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < d->processes; i++)
        infos[i] = (ProcessInfo){d->pids[i], d->bytes[i], 0xFFFFFFFF, 0xFFFFFFFF};
    return OK;
}
