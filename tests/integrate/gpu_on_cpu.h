// A GPU and its driver, on a CPU: a text for a GPU between this file and gpu_on_cpu.cpp is a library
// that has the functions of libcuda.so which the package calls. Blocks run one after the other, the
// threads of a block side by side.

#include <dlfcn.h>
#include <math.h>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#define __global__
#define __shared__ static
#define __grid_constant__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))

struct Place {
    unsigned x, y, z;
};
static thread_local Place threadIdx, blockIdx;
static Place blockDim;

static std::mutex gate;
static std::condition_variable opened;
static unsigned waiting, round_number;

static void __syncthreads() {
    std::unique_lock<std::mutex> lock(gate);
    const unsigned own = round_number;
    if (++waiting == blockDim.x) {
        waiting = 0;
        ++round_number;
        opened.notify_all();
    } else {
        opened.wait(lock, [&] { return round_number != own; });
    }
}
