// Vectors of float and int32 in the compiler's own extension, as wide as the variant's registers.
//
// Every variant (`VARIANTS` in setup.py) compiles the same files with other flags, so kLanes is 8 with
// AVX2 and 16 with AVX-512. Arithmetic on these types is lane by lane; a * b + c becomes one fused
// instruction.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef uint32_t Words __attribute__((vector_size(kLanes * 4)));
typedef uint16_t Halves __attribute__((vector_size(kLanes * 2)));
typedef uint8_t Bytes __attribute__((vector_size(kLanes)));

template <typename Vector, typename Element>
inline Vector load(const Element* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);  // one unaligned load
  return v;
}

template <typename Vector, typename Element>
inline void store(Element* to, Vector v) {
  std::memcpy(to, &v, sizeof v);
}

inline Floats broadcast(float x) { return x - Floats{}; }

// Both keep a NaN of the first operand.
inline Floats larger(Floats a, Floats b) { return b > a ? b : a; }
inline Floats smaller(Floats a, Floats b) { return b < a ? b : a; }

inline float sum_of(Floats v) {
  float total = 0;
  for (int i = 0; i < kLanes; ++i) total += v[i];
  return total;
}

inline float largest_of(Floats v) {
  float largest = v[0];
  for (int i = 1; i < kLanes; ++i) largest = v[i] > largest ? v[i] : largest;
  return largest;
}

// bfloat16 is the upper half of a float32.
inline Floats from_bfloat16(Halves v) {
  return (Floats)(__builtin_convertvector(v, Words) << 16);
}

// To nearest, ties to even; NaN keeps a set bit.
inline Halves to_bfloat16(Floats v) {
  const Words bits = (Words)v;
  const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Words nan = (bits >> 16) | 0x40;
  return __builtin_convertvector((Words)(v == v ? (Ints)rounded : (Ints)nan), Halves);
}

inline float from_bfloat16(uint16_t half) {
  const uint32_t bits = (uint32_t)half << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// 2^x for x <= 127; below -126 it is 0. Relative error below 2e-7.
//
// x = n + f with f in [-1/2, 1/2]; 2^f by its Taylor series in f ln 2, 2^n through the exponent.
inline Floats exp2_of(Floats x) {
  const Floats magic = broadcast(12582912.f);  // 1.5 * 2^23: adding it rounds to whole numbers
  x = smaller(x, broadcast(127.f));
  const Floats held = larger(x, broadcast(-126.f));
  const Floats shifted = held + magic;
  const Floats f = held - (shifted - magic);
  Floats p = broadcast(1.5403530e-4f);
  p = p * f + 1.3333558e-3f;
  p = p * f + 9.6181291e-3f;
  p = p * f + 5.5504109e-2f;
  p = p * f + 2.4022651e-1f;
  p = p * f + 6.9314718e-1f;
  p = p * f + 1.f;
  const Ints exponent = (Ints)shifted << 23;  // the low bits of `shifted` are n
  const Floats value = (Floats)((Ints)p + exponent);
  return x < broadcast(-126.f) ? Floats{} : value;
}

// GELU with tanh: x / 2 (1 + tanh u) = x / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3).
inline Floats gelu_of(Floats x) {
  const float factor = -2.f * 0.79788456f * 1.44269504f;  // -2 sqrt(2 / pi) log2(e)
  const Floats exponent = factor * (x + 0.044715f * x * x * x);
  return x / (1.f + exp2_of(exponent));
}
