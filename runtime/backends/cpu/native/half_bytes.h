// Weight codes of up to four bits, two in a byte: half the memory, and half of what a product reads.
#pragma once

#include <cstdint>

#include "dot.h"

constexpr int kLargestHalfByte = 4;
constexpr int64_t kQuadBytes = kPanel * 4;

// Bytes of one panel's quad.
inline int64_t stored_quad_bytes(int weight_bits) {
  return weight_bits > kLargestHalfByte ? kQuadBytes : kQuadBytes / 2;
}

// packed [quads][panel / 2][4] -> weight [quads][panel][4]: code - 2^(weight_bits - 1).
inline void unpack(const uint8_t* packed, int64_t quads, int weight_bits, int8_t* weight) {
  using Packed __attribute__((vector_size(kQuadBytes / 2))) = uint8_t;
  const uint8_t middle = (uint8_t)(1 << (weight_bits - 1));
  for (int64_t quad = 0; quad < quads; ++quad) {
    const Packed both = load<Packed>(packed + quad * kQuadBytes / 2);
    store(weight + quad * kQuadBytes, (both & 15) - middle);
    store(weight + quad * kQuadBytes + kQuadBytes / 2, (both >> 4) - middle);
  }
}
