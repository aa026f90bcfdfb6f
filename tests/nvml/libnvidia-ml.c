/* A stand-in for libnvidia-ml.so.1, so that the real bindings run on a machine without a GPU.
 *
 * It reads the file that NVML_STANDIN names at every call. One line a device:
 *     name uuid total_bytes used_bytes utilisation temperature_c power_mw error [pid:bytes ...] [reading=value ...]
 * `error` is an nvmlReturn_t that every call on the device returns, 0 = healthy. A first line
 * "init CODE" makes nvmlInitWithFlags return CODE. "hang SECONDS" makes every device call sleep.
 * Readings: memory_utilisation, power_limit (mW), clock, clock_max, memory_clock, memory_clock_max (MHz), throttle (bits),
 * ecc_corrected, ecc_uncorrected, and mig=uuid/name/total_bytes/used_bytes, one a part; without one it is not supported.
 * A device with parts has no utilisation. A line "xid NUMBER DEVICE CODE" is an event, told once; numbers grow from 1.
 * Built with -DOLD_DRIVER it lacks what a driver of 2020 lacks.
 * "apps SECONDS FOLDER", after the devices, adds what processes have: a file each, named by its pid, that says
 * "device bytes". When the process has ended, its memory stays in use for SECONDS.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_DEVICES 8
#define MAX_PROCESSES 16
#define MAX_PARTS 7
#define MAX_XIDS 32

enum { OK = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9,
       TIMEOUT = 10 };
enum { MEMORY_UTILISATION, POWER_LIMIT, CLOCK, CLOCK_MAX, MEMORY_CLOCK, MEMORY_CLOCK_MAX, THROTTLE, ECC_CORRECTED,
       ECC_UNCORRECTED, READINGS };
static const char *readings[READINGS] = {"memory_utilisation", "power_limit", "clock", "clock_max", "memory_clock",
                                         "memory_clock_max", "throttle", "ecc_corrected", "ecc_uncorrected"};

typedef struct { char uuid[96], name[64]; unsigned long long total, used; } Part;
typedef struct { unsigned number, device, code; } Xid;
typedef struct {
    char name[64], uuid[96];
    unsigned long long total, used;
    unsigned utilisation, temperature, power_mw, error, processes;
    unsigned pids[MAX_PROCESSES];
    unsigned long long bytes[MAX_PROCESSES];
    long long reading[READINGS]; /* -1 = not supported */
    Part part[MAX_PARTS];
    unsigned parts;
} Device;

typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } ProcessInfo;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilisation;

static Device devices[MAX_DEVICES];
static unsigned count, hang_s;
static int init_code;
static Xid xids[MAX_XIDS];
static unsigned xid_count;

static void parse_reading(Device *d, const char *text) {
    Part part = {0};
    if (d->parts < MAX_PARTS && sscanf(text, "mig=%95[^/]/%63[^/]/%llu/%llu", part.uuid, part.name, &part.total,
                                       &part.used) == 4) d->part[d->parts++] = part;
    for (int i = 0; i < READINGS; i++) {
        size_t length = strlen(readings[i]);
        if (!strncmp(text, readings[i], length) && text[length] == '=') d->reading[i] = atoll(text + length + 1);
    }
}

static void parse_device(char *line) {
    Device *d = &devices[count];
    int at = 0;
    memset(d, 0, sizeof *d);
    for (int i = 0; i < READINGS; i++) d->reading[i] = -1;
    if (sscanf(line, "%63s %95s %llu %llu %u %u %u %u %n", d->name, d->uuid, &d->total, &d->used,
               &d->utilisation, &d->temperature, &d->power_mw, &d->error, &at) < 8) return;
    for (char *p = strtok(line + at, " \n"); p && d->processes < MAX_PROCESSES; p = strtok(NULL, " \n"))
        if (sscanf(p, "%u:%llu", &d->pids[d->processes], &d->bytes[d->processes]) == 2) d->processes++;
        else parse_reading(d, p);
    count++;
}

enum { FREE, LIVES, FREES };

/* A process that is found dead has its file renamed to *.gone, so that all who look count from the same moment. */
static int standing(const char *path, unsigned pid, int delay_s) {
    char gone[1100];
    struct stat info;
    if (strstr(path, ".gone")) {
        if (stat(path, &info) == 0 && info.st_mtime + delay_s > time(NULL)) return FREES;
        unlink(path);
        return FREE;
    }
    if (kill((pid_t)pid, 0) == 0) return LIVES;
    snprintf(gone, sizeof gone, "%s.gone", path);
    rename(path, gone);
    utimensat(AT_FDCWD, gone, NULL, 0);
    return delay_s > 0 ? FREES : FREE;
}

static void read_app(const char *path, unsigned pid, int delay_s) {
    unsigned index = 0;
    unsigned long long bytes = 0;
    FILE *file = fopen(path, "r");
    int found = file ? fscanf(file, "%u %llu", &index, &bytes) : 0;
    if (file) fclose(file);
    int state = standing(path, pid, delay_s);
    if (found != 2 || index >= count || state == FREE) return;
    Device *d = &devices[index];
    d->used += bytes;
    if (state == FREES || d->processes >= MAX_PROCESSES) return;
    d->pids[d->processes] = pid;
    d->bytes[d->processes++] = bytes;
}

static void read_apps(const char *folder, int delay_s) {
    DIR *listing = opendir(folder);
    struct dirent *entry;
    unsigned pid;
    char path[1080];
    while (listing && (entry = readdir(listing))) {
        if (sscanf(entry->d_name, "%u", &pid) != 1) continue;
        snprintf(path, sizeof path, "%s/%.50s", folder, entry->d_name);
        read_app(path, pid, delay_s);
    }
    if (listing) closedir(listing);
}

static void load(void) {
    const char *path = getenv("NVML_STANDIN");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[2048], folder[1024];
    int delay_s;
    count = hang_s = xid_count = 0;
    init_code = file ? OK : DRIVER_NOT_LOADED;
    if (!file) return;
    while (fgets(line, sizeof line, file) && count < MAX_DEVICES) {
        if (sscanf(line, "init %d", &init_code) == 1 || sscanf(line, "hang %u", &hang_s) == 1) continue;
        if (sscanf(line, "apps %d %1023[^\n]", &delay_s, folder) == 2) {
            read_apps(folder, delay_s);
            continue;
        }
        Xid *x = &xids[xid_count];
        if (sscanf(line, "xid %u %u %u", &x->number, &x->device, &x->code) == 3) xid_count += xid_count < MAX_XIDS - 1;
        else parse_device(line);
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

/* Handles: 1 + device, or 256 * (1 + device) + part. */
static Part *part_of(void *handle) {
    size_t at = (size_t)handle;
    if (at < 256) return NULL;
    load();
    unsigned index = (unsigned)(at / 256 - 1), part = at % 256;
    return index < count && part < devices[index].parts ? &devices[index].part[part] : NULL;
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

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    load();
    for (unsigned index = 0; index < count; index++) {
        if (strcmp(devices[index].uuid, uuid)) continue;
        *handle = (void *)(size_t)(index + 1);
        return (int)devices[index].error;
    }
    return NOT_FOUND;
}

int nvmlDeviceGetName(void *handle, char *text, unsigned size) {
    Part *p = part_of(handle);
    if (p) { snprintf(text, size, "%s", p->name); return OK; }
    DEVICE(d);
    snprintf(text, size, "%s", d->name);
    return OK;
}

int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) {
    Part *p = part_of(handle);
    if (p) { snprintf(text, size, "%s", p->uuid); return OK; }
    DEVICE(d);
    snprintf(text, size, "%s", d->uuid);
    return OK;
}

int nvmlDeviceGetMemoryInfo(void *handle, Memory *memory) {
    Part *p = part_of(handle);
    if (p) { *memory = (Memory){p->total, p->total - p->used, p->used}; return OK; }
    DEVICE(d);
    memory->total = d->total;
    memory->used = d->used;
    memory->free = d->total - d->used;
    return OK;
}

int nvmlDeviceGetUtilizationRates(void *handle, Utilisation *rates) {
    DEVICE(d);
    if (d->parts) return NOT_SUPPORTED;
    rates->gpu = d->utilisation;
    rates->memory = d->reading[MEMORY_UTILISATION] < 0 ? 0 : (unsigned)d->reading[MEMORY_UTILISATION];
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

static int running(void *handle, unsigned *number, ProcessInfo *infos) {
    DEVICE(d);
    unsigned room = infos ? *number : 0;
    *number = d->processes;
    if (d->processes > room) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < d->processes; i++)
        infos[i] = (ProcessInfo){d->pids[i], d->bytes[i], 0xFFFFFFFF, 0xFFFFFFFF};
    return OK;
}

int nvmlDeviceGetComputeRunningProcesses_v2(void *handle, unsigned *number, ProcessInfo *infos) {
    return running(handle, number, infos);
}

static int give(void *handle, int reading, unsigned *value) {
    DEVICE(d);
    if (d->reading[reading] < 0) return NOT_SUPPORTED;
    *value = (unsigned)d->reading[reading];
    return OK;
}

int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *milliwatts) {
    return give(handle, POWER_LIMIT, milliwatts);
}

int nvmlDeviceGetClockInfo(void *handle, int type, unsigned *mhz) {
    return give(handle, type == 2 ? MEMORY_CLOCK : CLOCK, mhz);
}

int nvmlDeviceGetMaxClockInfo(void *handle, int type, unsigned *mhz) {
    return give(handle, type == 2 ? MEMORY_CLOCK_MAX : CLOCK_MAX, mhz);
}

int nvmlDeviceGetTotalEccErrors(void *handle, int type, int counter, unsigned long long *errors) {
    unsigned found;
    int code = counter ? NOT_SUPPORTED : give(handle, type ? ECC_UNCORRECTED : ECC_CORRECTED, &found);
    if (code == OK) *errors = found;
    return code;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *bits) {
    unsigned found;
    int code = give(handle, THROTTLE, &found);
    if (code == OK) *bits = found;
    return code;
}

#ifndef OLD_DRIVER
int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *bits) {
    return nvmlDeviceGetCurrentClocksThrottleReasons(handle, bits);
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *number, ProcessInfo *infos) {
    return running(handle, number, infos);
}

int nvmlDeviceGetMigMode(void *handle, unsigned *now, unsigned *pending) {
    DEVICE(d);
    *now = *pending = d->parts > 0;
    return OK;
}

int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *number) {
    DEVICE(d);
    (void)d;
    *number = MAX_PARTS;
    return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **part) {
    DEVICE(d);
    if (index >= d->parts) return NOT_FOUND;
    *part = (void *)((size_t)handle * 256 + index);
    return OK;
}

int nvmlDeviceGetGpuInstanceId(void *handle, unsigned *id) {
    *id = (size_t)handle % 256 + 1;
    return OK;
}

typedef struct { void *device; unsigned long long type, data; unsigned gpu, compute; } EventData;

static unsigned xid_told;

int nvmlEventSetCreate(void **set) { xid_told = 0; *set = &xid_told; return OK; }
int nvmlEventSetFree(void *set) { (void)set; return OK; }

int nvmlDeviceRegisterEvents(void *handle, unsigned long long types, void *set) {
    DEVICE(d);
    (void)d, (void)types, (void)set;
    return OK;
}

int nvmlEventSetWait_v2(void *set, EventData *event, unsigned timeout_ms) {
    (void)set, (void)timeout_ms;
    load();
    for (unsigned i = 0; i < xid_count; i++)
        if (xids[i].number > xid_told) {
            xid_told = xids[i].number;
            *event = (EventData){(void *)(size_t)(xids[i].device + 1), 8, xids[i].code, 0, 0};
            return OK;
        }
    return TIMEOUT;
}
#endif
