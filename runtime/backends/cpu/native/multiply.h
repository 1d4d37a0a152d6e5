// The product of some tokens' numbers with a panel, in registers.
#pragma once

#include <cstdint>
#include <cstring>

#include "dot.h"

// y [Rows, panel] += x [Rows, count] w [count, panel], rows of w `w_stride` apart.
template <int Rows>
inline void multiply(const float* x, int64_t x_stride, const float* w, int64_t w_stride,
                     int64_t count, Floats (&y)[Rows][2]) {
  for (int64_t k = 0; k < count; ++k) {
    const Floats w0 = load<Floats>(w + k * w_stride);
    const Floats w1 = load<Floats>(w + k * w_stride + kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r) {
      const float value = x[r * x_stride + k];
      y[r][0] = value * w0 + y[r][0];
      y[r][1] = value * w1 + y[r][1];
    }
  }
}

// The same as a function of its own, for callers that hold so much else that, inlined, sums would go
// through memory.
template <int Rows>
__attribute__((noinline)) void multiply_apart(const float* x, int64_t x_stride, const float* w,
                                              int64_t w_stride, int64_t count,
                                              Floats (&y)[Rows][2]) {
  Floats sum[Rows][2];
  std::memcpy(sum, y, sizeof sum);
  multiply<Rows>(x, x_stride, w, w_stride, count, sum);
  std::memcpy(y, sum, sizeof sum);
}

#ifdef __AVX512BF16__
// The same of bfloat16, w [ceil(count / 2)][panel][2], what lies beyond count being zero in x or in w.
template <int Rows>
inline void multiply(const uint16_t* x, int64_t x_stride, const uint16_t* w, int64_t w_stride,
                     int64_t count, Floats (&y)[Rows][2]) {
  for (int64_t k = 0; k < count; k += 2) {
    const __m512bh w0 = (__m512bh)load<__m512i>(w + k * w_stride);
    const __m512bh w1 = (__m512bh)load<__m512i>(w + k * w_stride + 2 * kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r) {
      int32_t pair;
      std::memcpy(&pair, x + r * x_stride + k, sizeof pair);
      const __m512bh value = (__m512bh)_mm512_set1_epi32(pair);
      y[r][0] = (Floats)_mm512_dpbf16_ps((__m512)y[r][0], value, w0);
      y[r][1] = (Floats)_mm512_dpbf16_ps((__m512)y[r][1], value, w1);
    }
  }
}
#endif
