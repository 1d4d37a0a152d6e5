// A row passes through the first-level cache once: gain, rotation, statistics, codes.
//
// The rotation of a block is Paley ⊗ Sylvester, index = paley * span + sylvester. The Sylvester
// factor takes butterflies, a + b and a - b of entries 1, 2, 4 ... apart; up to eight vectors are in
// registers at a time, so a pass over the row does three to six of these steps. The Paley factor is
// a dense product with signs alone, 11 or 19 additions per entry.
#include "prepare.h"

#include <cfloat>
#include <cmath>

#include "paley.h"
#include "parallel.h"
#include "vector.h"

namespace {

// Butterflies between whole vectors, 1, 2, 4 ... of them apart.
template <int Count>
inline void butterflies(Floats (&v)[Count]) {
#pragma GCC unroll 8
  for (int apart = 1; apart < Count; apart *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < Count; ++i) {
      if (i & apart) continue;
      const Floats a = v[i], b = v[i + apart];
      v[i] = a + b;
      v[i + apart] = a - b;
    }
  }
}

// Butterflies within a vector, `Apart` lanes apart.
template <int Apart>
inline Floats butterfly_lanes(Floats v) {
  Ints partner;
  Floats sign;
  for (int i = 0; i < kLanes; ++i) {
    partner[i] = i ^ Apart;
    sign[i] = i & Apart ? -1.f : 1.f;
  }
#ifdef __clang__
  Floats swapped;
  for (int i = 0; i < kLanes; ++i) swapped[i] = v[i ^ Apart];
#else
  const Floats swapped = __builtin_shuffle(v, partner);
#endif
  return sign * v + swapped;
}

inline Floats butterfly_all_lanes(Floats v) {
  v = butterfly_lanes<1>(v);
  v = butterfly_lanes<2>(v);
  v = butterfly_lanes<4>(v);
  if constexpr (kLanes == 16) v = butterfly_lanes<8>(v);
  return v;
}

// Butterflies of distances step, 2 step ... (Count / 2) step; lanes too where step is a vector.
template <int Count>
void sylvester_pass(float* z, int64_t span, int64_t step) {
  for (int64_t start = 0; start < span; start += Count * step) {
    for (int64_t i = start; i < start + step; i += kLanes) {
      Floats v[Count];
#pragma GCC unroll 8
      for (int k = 0; k < Count; ++k) v[k] = load<Floats>(z + i + k * step);
      butterflies(v);
      if (step == kLanes) {
#pragma GCC unroll 8
        for (int k = 0; k < Count; ++k) v[k] = butterfly_all_lanes(v[k]);
      }
#pragma GCC unroll 8
      for (int k = 0; k < Count; ++k) store(z + i + k * step, v[k]);
    }
  }
}

// z [span] S in place, not normalised; span is a power of two.
void sylvester(float* z, int64_t span) {
  if (span < kLanes) {
    for (int64_t apart = 1; apart < span; apart *= 2) {
      for (int64_t i = 0; i < span; ++i) {
        if (i & apart) continue;
        const float a = z[i], b = z[i + apart];
        z[i] = a + b;
        z[i + apart] = a - b;
      }
    }
    return;
  }
  int64_t step = kLanes;
  do {
    switch (smaller_of(span / step, 8)) {
      case 1: sylvester_pass<1>(z, span, step); return;
      case 2: sylvester_pass<2>(z, span, step); return;
      case 4: sylvester_pass<4>(z, span, step); return;
      default: sylvester_pass<8>(z, span, step);
    }
    step *= 8;
  } while (step < span);
}

// One output of the dense product with a Paley matrix: a chain of additions and subtractions.
template <int Order, typename Value>
inline void paley_column(const Value (&in)[Order], float* z, int64_t span) {
  constexpr Paley<Order> signs;
#pragma GCC unroll 20
  for (int j = 0; j < Order; ++j) {
    Value sum = in[0];
#pragma GCC unroll 20
    for (int i = 1; i < Order; ++i) sum = signs.negative[i][j] ? sum - in[i] : sum + in[i];
    std::memcpy(z + j * span, &sum, sizeof sum);
  }
}

template <int Order, typename Value>
inline void paley_at(float* z, int64_t span) {
  Value in[Order];
  for (int i = 0; i < Order; ++i) std::memcpy(&in[i], z + i * span, sizeof(Value));
  paley_column<Order>(in, z, span);
}

// z [Order, span] -> Pᵀ z in place.
template <int Order>
void paley(float* z, int64_t span) {
  int64_t i = 0;
  for (; i + kLanes <= span; i += kLanes) paley_at<Order, Floats>(z + i, span);
  for (; i < span; ++i) paley_at<Order, float>(z + i, span);
}

void rotate_block(float* z, int64_t block, int paley_order) {
  const int64_t span = block / paley_order;
  if (span > 1) {
    for (int i = 0; i < paley_order; ++i) sylvester(z + i * span, span);
  }
  if (paley_order == 12) paley<12>(z, span);
  if (paley_order == 20) paley<20>(z, span);
}

inline Floats input_at(const float* x) { return load<Floats>(x); }
inline Floats input_at(const uint16_t* x) { return from_bfloat16(load<Halves>(x)); }
inline float value_of(float x) { return x; }
inline float value_of(uint16_t x) { return from_bfloat16(x); }

template <typename Input>
void apply_gain(const Input* x, const float* gain, float* z, int64_t size) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) store(z + i, input_at(x + i) * load<Floats>(gain + i));
  for (; i < size; ++i) z[i] = value_of(x[i]) * gain[i];
}

float root_mean_square(const float* z, int64_t size) {
  Floats sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= size; i += 4 * kLanes) {
    for (int k = 0; k < 4; ++k) {
      const Floats v = load<Floats>(z + i + k * kLanes);
      sums[k] = v * v + sums[k];
    }
  }
  float total = sum_of((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; i < size; ++i) total += z[i] * z[i];
  return std::sqrt(total / (float)size);
}

// NaN where there is one: as integers, magnitudes of floats keep their order, with NaN on top.
float largest_magnitude(const float* z, int64_t size) {
  Ints largest = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const Ints magnitude = load<Ints>(z + i) & 0x7fffffff;
    largest = magnitude > largest ? magnitude : largest;
  }
  int32_t top = 0;
  for (int k = 0; k < kLanes; ++k) top = largest[k] > top ? largest[k] : top;
  for (; i < size; ++i) {
    int32_t magnitude;
    std::memcpy(&magnitude, z + i, 4);
    magnitude &= 0x7fffffff;
    top = magnitude > top ? magnitude : top;
  }
  float result;
  std::memcpy(&result, &top, 4);
  return result;
}

// floor(z / scale + 2^(bits - 1)), held within 0 ... 2^bits - 1. Scales that have a finite
// reciprocal are multiplied by it, which is one rounding away from the quotient.
void write_codes(const float* z, float scale, int bits, uint8_t* codes, int64_t size) {
  const bool tiny = scale < FLT_MIN;
  const float divisor = scale > 0 ? scale : INFINITY;
  const float reciprocal = tiny ? 0 : 1 / scale;
  const float middle = (float)(1 << (bits - 1)), last = (float)((1 << bits) - 1);
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const Floats v = load<Floats>(z + i);
    Floats code = (tiny ? v / divisor : v * reciprocal) + middle;
    code = smaller(larger(code, Floats{}), broadcast(last));
    // What is not negative is cut to its floor.
    store(codes + i, __builtin_convertvector(__builtin_convertvector(code, Ints), Bytes));
  }
  for (; i < size; ++i) {
    float code = (tiny ? z[i] / divisor : z[i] * reciprocal) + middle;
    code = code > 0 ? code : 0;
    codes[i] = (uint8_t)(code < last ? code : last);
  }
}

template <typename Input>
bool prepare_row(const PrepareArguments& a, int64_t row) {
  float* z = a.rotated + row * a.size;
  apply_gain(static_cast<const Input*>(a.input) + row * a.input_stride, a.gain, z, a.size);
  if (a.block > 1) {
    for (int64_t i = 0; i < a.size; i += a.block) rotate_block(z + i, a.block, a.paley_order);
  }
  if (a.bits == 0) return true;
  float scale = 0;
  if (a.root_mean_square_gain != 0) scale += a.root_mean_square_gain * root_mean_square(z, a.size);
  if (a.absmax_gain != 0) scale += a.absmax_gain * largest_magnitude(z, a.size);
  if (!std::isfinite(scale)) return false;
  a.scale[row] = scale;
  write_codes(z, scale, a.bits, a.codes + row * a.size, a.size);
  return true;
}

constexpr int64_t kRowsPerTask = 16;

}  // namespace

int64_t qdit4sr_prepare(const PrepareArguments* arguments) {
  const PrepareArguments& a = *arguments;
  int64_t bad = -1;
  for_each_task(divided_up(a.tokens, kRowsPerTask), a.threads, [&](int64_t task) {
    const int64_t stop = smaller_of(a.tokens, (task + 1) * kRowsPerTask);
    for (int64_t row = task * kRowsPerTask; row < stop; ++row) {
      const bool good =
          a.is_bfloat16 ? prepare_row<uint16_t>(a, row) : prepare_row<float>(a, row);
      if (!good) __atomic_store_n(&bad, row, __ATOMIC_RELAXED);
    }
  });
  return bad;
}
