// Sums of products of unsigned activation codes and signed weight codes, exact on every variant.
//
// A weight's panel holds kPanel output channels: for every four inputs ("quad") the four codes of
// each channel side by side, which is what byte products of all instruction sets take. A tile of
// results has kRows tokens and one panel.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "vector.h"

constexpr int kPanel = 2 * kLanes;
#ifdef __AVX512F__
constexpr int kRows = 12;  // 24 of 32 registers hold sums
#else
constexpr int kRows = 6;  // 12 of 16
#endif

// Four codes of one token in every lane.
inline int32_t quad_at(const uint8_t* codes) {
  int32_t quad;
  std::memcpy(&quad, codes, sizeof quad);
  return quad;
}

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)

#ifdef __AVX512VNNI__
using Register = __m512i;
#define DOT "vpdpbusd"
#define ANY "v"
#else
using Register = __m256i;
#define DOT "%{vex%} vpdpbusd"
#define ANY "x"
#endif

// VNNI adds four products to a 32-bit sum in one instruction. One token's quad with one panel, given
// as instructions: compilers copy sums to other registers around the intrinsic and broadcast many
// tokens' quads ahead, and for either there are too few registers, so that sums go through memory.
inline void add_quad(Register (&sum)[2], const uint8_t* codes, Register w0, Register w1) {
  struct Quad { uint8_t bytes[4]; };
  Register quad;
  asm("vpbroadcastd %3, %2\n\t" DOT " %4, %2, %0\n\t" DOT " %5, %2, %1"
      : "+" ANY(sum[0]), "+" ANY(sum[1]), "=&" ANY(quad)
      : "m"(*reinterpret_cast<const Quad*>(codes)), ANY(w0), ANY(w1));
}

#undef DOT
#undef ANY

template <int Rows>
inline void add_tile(const uint8_t* codes, int64_t stride, const int8_t* weight, int64_t quads,
                     int /*depth*/, int32_t (*sums)[kPanel]) {
  Register sum[Rows][2];
#pragma GCC unroll 12
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < 2; ++v) sum[r][v] = load<Register>(&sums[r][v * kLanes]);
  }
  for (int64_t quad = 0; quad < quads; ++quad) {
    const Register w0 = load<Register>(weight + quad * kPanel * 4);
    const Register w1 = load<Register>(weight + quad * kPanel * 4 + kLanes * 4);
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r) add_quad(sum[r], codes + r * stride + quad * 4, w0, w1);
  }
#pragma GCC unroll 12
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < 2; ++v) store(&sums[r][v * kLanes], sum[r][v]);
  }
}

// The instruction does not saturate, so any number of quads can be added.
inline int quads_per_sum(int, int) { return 1; }

#else

// AVX2 adds two products in 16 bits, which saturates. With activation codes up to 2^a - 1 and weight
// codes of magnitude up to 2^(w - 1), such a pair is below (2^a - 1) 2^w, which fits for all widths
// but a = w = 8. So many pairs fit one 16-bit sum; then it is added to the 32-bit one. The fewer bits,
// the rarer that is: every 136th time at four bits each.
inline int quads_per_sum(int activation_bits, int weight_bits) {
  return 32767 / (((1 << activation_bits) - 1) << weight_bits);
}

// sum += products, as an instruction of its own. Left to themselves compilers start all products of a
// tile first and add later, for which there are too few registers: sums would go through memory.
inline void add_in_place(__m256i& sum, __m256i products) {
  asm volatile("vpaddw %1, %0, %0" : "+x"(sum) : "x"(products));
}

// `Depth` quads per 16-bit sum; 0 takes `depth`.
template <int Rows, int Depth>
inline void add_narrow(const uint8_t* codes, int64_t stride, const int8_t* weight, int64_t quads,
                       int depth, int32_t (*sums)[kPanel]) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (int64_t begin = 0; begin < quads;) {
    int64_t end = begin + (Depth ? Depth : depth);
    end = end < quads ? end : quads;
    __m256i sum[Rows][2];
#pragma GCC unroll 6
    for (int r = 0; r < Rows; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
    for (int64_t quad = begin; quad < end; ++quad) {
      const __m256i w0 = load<__m256i>(weight + quad * kPanel * 4);
      const __m256i w1 = load<__m256i>(weight + quad * kPanel * 4 + kLanes * 4);
#pragma GCC unroll 6
      for (int r = 0; r < Rows; ++r) {
        const __m256i a = _mm256_set1_epi32(quad_at(codes + r * stride + quad * 4));
        add_in_place(sum[r][0], _mm256_maddubs_epi16(a, w0));
        add_in_place(sum[r][1], _mm256_maddubs_epi16(a, w1));
      }
    }
#pragma GCC unroll 6
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        const __m256i wide = _mm256_madd_epi16(sum[r][v], ones);
        int32_t* to = &sums[r][v * kLanes];
        store(to, _mm256_add_epi32(load<__m256i>(to), wide));
      }
    }
    begin = end;
  }
}

// Eight bits each: products in 16 bits, added in 32. Even and odd codes of a quad are widened apart.
template <int Rows>
inline void add_wide(const uint8_t* codes, int64_t stride, const int8_t* weight, int64_t quads,
                     int32_t (*sums)[kPanel]) {
  const __m256i low_bytes = _mm256_set1_epi16(0xff);
  for (int v = 0; v < 2; ++v) {
    __m256i sum[Rows];
    for (int r = 0; r < Rows; ++r) sum[r] = load<__m256i>(&sums[r][v * kLanes]);
    for (int64_t quad = 0; quad < quads; ++quad) {
      const __m256i w = load<__m256i>(weight + quad * kPanel * 4 + v * kLanes * 4);
      const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8);
      const __m256i odd = _mm256_srai_epi16(w, 8);
      for (int r = 0; r < Rows; ++r) {
        const __m256i a = _mm256_set1_epi32(quad_at(codes + r * stride + quad * 4));
        const __m256i a_even = _mm256_and_si256(a, low_bytes), a_odd = _mm256_srli_epi16(a, 8);
        sum[r] = _mm256_add_epi32(sum[r], _mm256_madd_epi16(a_even, even));
        sum[r] = _mm256_add_epi32(sum[r], _mm256_madd_epi16(a_odd, odd));
      }
    }
    for (int r = 0; r < Rows; ++r) store(&sums[r][v * kLanes], sum[r]);
  }
}

template <int Rows>
inline void add_tile(const uint8_t* codes, int64_t stride, const int8_t* weight, int64_t quads,
                     int depth, int32_t (*sums)[kPanel]) {
  switch (depth) {
    case 0: return add_wide<Rows>(codes, stride, weight, quads, sums);
    case 1: return add_narrow<Rows, 1>(codes, stride, weight, quads, depth, sums);
    case 2: return add_narrow<Rows, 2>(codes, stride, weight, quads, depth, sums);
    case 4: return add_narrow<Rows, 4>(codes, stride, weight, quads, depth, sums);
    case 8: return add_narrow<Rows, 8>(codes, stride, weight, quads, depth, sums);
    default: return add_narrow<Rows, 0>(codes, stride, weight, quads, depth, sums);
  }
}

#endif

// Adds the products of `rows` tokens, at most kRows, with one panel of `quads` quads to `sums`.
template <int Rows = kRows>
inline void add_rows(int rows, const uint8_t* codes, int64_t stride, const int8_t* weight,
                     int64_t quads, int depth, int32_t (*sums)[kPanel]) {
  if (rows == Rows) return add_tile<Rows>(codes, stride, weight, quads, depth, sums);
  if constexpr (Rows > 1) add_rows<Rows - 1>(rows, codes, stride, weight, quads, depth, sums);
}
