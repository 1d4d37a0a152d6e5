// What this variant of the kernels is, and whether the processor runs it.
#include "dot.h"

// Called before anything else: nothing in it may need the variant's own instructions.
#if defined(__AVX512BF16__)
#define MULTIPLIES_BFLOAT16 __builtin_cpu_supports("avx512bf16")
#else
#define MULTIPLIES_BFLOAT16 true
#endif
#if defined(__AVX512VNNI__)
#define RUNS_HERE                                                                \
  (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&    \
   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&   \
   __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma") &&      \
   MULTIPLIES_BFLOAT16)
#elif defined(__AVXVNNI__)
#define RUNS_HERE \
  (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_avx_vnni())
#include <cpuid.h>
namespace {
// Compilers learned the name "avxvnni" later than the instructions: CPUID leaf 7, subleaf 1, EAX bit 4.
bool has_avx_vnni() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
}  // namespace
#else
#define RUNS_HERE (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#endif

#pragma GCC visibility push(default)
extern "C" {

int32_t qdit4sr_runs_here() {
  __builtin_cpu_init();
  return RUNS_HERE;
}

int32_t qdit4sr_panel() { return kPanel; }

}
#pragma GCC visibility pop
