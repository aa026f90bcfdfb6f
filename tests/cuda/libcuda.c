/* A stand-in for libcuda.so.1: the checkpoint calls alone, so that they are really called on a machine without a GPU.
 *
 * CUDA_STANDIN names a folder. PID.state holds what a process is: "running" (also without a file), "locked",
 * "checkpointed" or "failed". A file "fail" says "CALL CODE" (lock, checkpoint, restore or unlock): that call fails so and
 * changes nothing; CODE -1 ends the caller with a crash, -2 never returns. "timeout" gets the timeoutMs of each lock.
 * With NVML_APPS, which the stand-in for NVML reads, a checkpointed process has no memory of a device: its file moves to
 * PID.saved in CUDA_STANDIN, and back.
 * Built with -DOLD_DRIVER it lacks what a driver before release 570 lacks.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID_VALUE = 1, NOT_INITIALIZED = 3, ILLEGAL_STATE = 401 };
enum { RUNNING, LOCKED, CHECKPOINTED, FAILED, STATES };
static const char *names[STATES] = {"running", "locked", "checkpointed", "failed"};
static int initialised;

typedef struct { unsigned timeoutMs, reserved0; unsigned long long reserved1[7]; } LockArgs;

static const char *path(int pid, const char *what) {
    static char text[512];
    if (pid)
        snprintf(text, sizeof text, "%s/%d.%s", getenv("CUDA_STANDIN"), pid, what);
    else
        snprintf(text, sizeof text, "%s/%s", getenv("CUDA_STANDIN"), what);
    return text;
}

int cuInit(unsigned flags) {
    initialised = 1;
    return flags ? INVALID_VALUE : OK;
}

int cuGetErrorName(int code, const char **name) {
    *name = code == INVALID_VALUE     ? "CUDA_ERROR_INVALID_VALUE"
            : code == 2               ? "CUDA_ERROR_OUT_OF_MEMORY"
            : code == NOT_INITIALIZED ? "CUDA_ERROR_NOT_INITIALIZED"
            : code == ILLEGAL_STATE   ? "CUDA_ERROR_ILLEGAL_STATE"
            : code == 801             ? "CUDA_ERROR_NOT_SUPPORTED"
                                      : "CUDA_ERROR_UNKNOWN";
    return OK;
}

#ifndef OLD_DRIVER
static int state_of(int pid) {
    char text[32] = "running";
    FILE *file = fopen(path(pid, "state"), "r");
    if (file) {
        if (fscanf(file, "%31s", text) != 1) text[0] = 0;
        fclose(file);
    }
    for (int state = 0; state < STATES; state++)
        if (!strcmp(text, names[state])) return state;
    return FAILED;
}

static int move(const char *call, int pid, int from, int to) {
    char failing[32];
    int code;
    if (!initialised) return NOT_INITIALIZED;
    if (kill(pid, 0)) return INVALID_VALUE;
    FILE *file = fopen(path(0, "fail"), "r");
    if (file) {
        int found = fscanf(file, "%31s %d", failing, &code);
        fclose(file);
        if (found == 2 && !strcmp(failing, call)) {
            if (code == -1) abort();
            if (code == -2) for (;;) pause();
            return code;
        }
    }
    if (state_of(pid) != from) return ILLEGAL_STATE;
    file = fopen(path(pid, "state"), "w");
    fprintf(file, "%s\n", names[to]);
    fclose(file);
    return OK;
}

static void memory(int pid, int back) {
    char live[512], saved[512];
    if (!getenv("NVML_APPS")) return;
    snprintf(live, sizeof live, "%s/%d", getenv("NVML_APPS"), pid);
    snprintf(saved, sizeof saved, "%s", path(pid, "saved"));
    if (back) rename(saved, live);
    else rename(live, saved);
}

int cuCheckpointProcessGetState(int pid, int *state) {
    if (!initialised) return NOT_INITIALIZED;
    if (kill(pid, 0)) return INVALID_VALUE;
    *state = state_of(pid);
    return OK;
}

int cuCheckpointProcessLock(int pid, LockArgs *args) {
    LockArgs zero = {0};
    if (!args || args->reserved0 || memcmp(args->reserved1, zero.reserved1, sizeof zero.reserved1)) return INVALID_VALUE;
    FILE *file = fopen(path(0, "timeout"), "w");
    fprintf(file, "%u\n", args->timeoutMs);
    fclose(file);
    return move("lock", pid, RUNNING, LOCKED);
}

int cuCheckpointProcessCheckpoint(int pid, void *args) {
    int result = args ? INVALID_VALUE : move("checkpoint", pid, LOCKED, CHECKPOINTED);
    if (!result) memory(pid, 0);
    return result;
}

int cuCheckpointProcessRestore(int pid, void *args) {
    int result = args ? INVALID_VALUE : move("restore", pid, CHECKPOINTED, LOCKED);
    if (!result) memory(pid, 1);
    return result;
}

int cuCheckpointProcessUnlock(int pid, void *args) {
    return args ? INVALID_VALUE : move("unlock", pid, LOCKED, RUNNING);
}
#endif
