// The functions of the driver, as they are declared in cuda.h, and kernels by their names.

template <class... A, std::size_t... I>
void call(void (*kernel)(A...), void** given, std::index_sequence<I...>) {
    kernel(*(std::remove_const_t<A>*)given[I]...);
}
template <class... A>
void call(void (*kernel)(A...), void** given) {
    call(kernel, given, std::index_sequence_for<A...>());
}
#define KERNEL(name) \
    extern "C" void run_##name(void** given) { call(name, given); }
KERNEL(tabulate) KERNEL(march) KERNEL(cross_interval) KERNEL(slope) KERNEL(pilot)

typedef int CUresult, CUdevice;
typedef struct context* CUcontext;
typedef struct module* CUmodule;
typedef void (*CUfunction)(void**);
typedef struct stream* CUstream;

enum { INVALID_VALUE = 1, INVALID_IMAGE = 200, INVALID_CONTEXT = 201, NOT_FOUND = 500 };
static thread_local int contexts;
static CUcontext const the_context = (CUcontext)0x10;
static CUmodule const the_module = (CUmodule)0x20;
static CUstream const the_stream = (CUstream)0x30;
extern "C" int64_t launches = 0;

extern "C" CUresult cuInit(unsigned flags) { return flags ? INVALID_VALUE : 0; }
extern "C" CUresult cuDeviceGet(CUdevice* device, int ordinal) {
    *device = ordinal;
    return ordinal ? INVALID_VALUE : 0;
}
extern "C" CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    *context = the_context;
    return device ? INVALID_VALUE : 0;
}
extern "C" CUresult cuCtxPushCurrent_v2(CUcontext context) {
    ++contexts;
    return context == the_context ? 0 : INVALID_CONTEXT;
}
extern "C" CUresult cuCtxPopCurrent_v2(CUcontext* context) {
    *context = the_context;
    return contexts-- ? 0 : INVALID_CONTEXT;
}
extern "C" CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    if (!contexts) return INVALID_CONTEXT;
    *module = the_module;
    return strcmp((const char*)image, "an image") ? INVALID_IMAGE : 0;
}
extern "C" CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    if (!contexts || module != the_module) return INVALID_CONTEXT;
    char full[64] = "run_";
    Dl_info self;
    dladdr((void*)cuInit, &self);
    *function = (CUfunction)dlsym(dlopen(self.dli_fname, RTLD_NOW), strncat(full, name, 32));
    return *function ? 0 : NOT_FOUND;
}
extern "C" CUresult cuLaunchKernel(
    CUfunction function, unsigned gridX, unsigned gridY, unsigned gridZ, unsigned blockX,
    unsigned blockY, unsigned blockZ, unsigned shared, CUstream stream, void** given, void** extra
) {
    if (!contexts) return INVALID_CONTEXT;
    if (stream != the_stream || extra || shared || blockX > 1024) return INVALID_VALUE;
    if (gridY * gridZ * blockY * blockZ != 1 || !gridX || !blockX) return INVALID_VALUE;
    ++launches;
    blockDim = {blockX, 1, 1};
    for (unsigned b = 0; b < gridX; ++b) {
        std::vector<std::thread> threads;
        for (unsigned i = 0; i < blockX; ++i)
            threads.emplace_back([=] {
                blockIdx = {b, 0, 0};
                threadIdx = {i, 0, 0};
                function(given);
            });
        for (std::thread& thread : threads) thread.join();
    }
    return 0;
}
extern "C" CUresult cuGetErrorString(CUresult code, const char** text) {
    *text = code == INVALID_IMAGE ? "device kernel image is invalid" : "an error";
    return 0;
}
