// CUDA's language on a processor: enough of it to run the kernels of the package where there is no GPU.
//
// Each thread of a block is a coroutine with a stack of its own. One runs until it waits for others, at
// __syncthreads() or in a warp shuffle, and a warp as far as it can before the next: so that a forgotten barrier
// lets it read what is not yet there. The turns go upwards, or downwards. A barrier that some threads
// never reach is an error, where a GPU would hang or go on with anything. Blocks run one after another.

#include <cmath>
#include <cstring>
#include <ucontext.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __shared__ static

using std::erf; using std::exp; using std::log; using std::sqrt; using std::tanh;

struct dim3 { unsigned x, y, z; };
static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

enum State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };
const int WARP = 32, STACK = 1 << 15;

struct Thread { ucontext_t context; State state; double exchanged; char stack[STACK]; };
static Thread threads[1024];
static ucontext_t scheduler;
static int current;
static bool downwards;
static void (*kernel)();

static void wait(State at) {
    threads[current].state = at;
    swapcontext(&threads[current].context, &scheduler);
}

static void body() {
    kernel();
    threads[current].state = DONE;
}

static void resume(int i) {
    current = i;
    threadIdx = {unsigned(i), 0, 0};
    swapcontext(&scheduler, &threads[i].context);
}

// If all threads from first to last wait at the same kind of barrier, let them go on.
static bool release(int first, int last, State at) {
    for (int i = first; i < last; i++) if (threads[i].state != at) return false;
    for (int i = first; i < last; i++) threads[i].state = READY;
    return true;
}

// Run a warp until it waits for others or is done.
static void run_warp(int first) {
    do {
        for (int n = 0; n < WARP; n++) {
            int i = first + (downwards ? WARP - 1 - n : n);
            if (threads[i].state == READY) resume(i);
        }
    } while (release(first, first + WARP, AT_WARP_BARRIER));
}

static bool run_block(int size) {
    for (int i = 0; i < size; i++) {
        Thread& thread = threads[i];
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack;
        thread.context.uc_stack.ss_size = STACK;
        thread.context.uc_link = &scheduler;
        makecontext(&thread.context, body, 0);
        thread.state = READY;
    }
    do {
        for (int first = 0; first < size; first += WARP) run_warp(downwards ? size - WARP - first : first);
    } while (release(0, size, AT_BLOCK_BARRIER));
    for (int i = 0; i < size; i++) if (threads[i].state != DONE) return false;
    return true;
}

static int run(void (*function)(), const unsigned* grid, unsigned size, bool last_first) {
    kernel = function;
    downwards = last_first;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {size, 1, 1};
    for (blockIdx.z = 0; blockIdx.z < grid[2]; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < grid[1]; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < grid[0]; blockIdx.x++)
                if (!run_block(size)) return 1;
    return 0;
}

}  // namespace emulator

static inline double __longlong_as_double(long long bits) {
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

static inline void __syncthreads() { emulator::wait(emulator::AT_BLOCK_BARRIER); }

template <typename T> static T __shfl_xor_sync(unsigned, T value, int distance) {
    using namespace emulator;
    threads[current].exchanged = value;
    wait(AT_WARP_BARRIER);
    T other = T(threads[current ^ distance].exchanged);
    wait(AT_WARP_BARRIER);
    return other;
}
