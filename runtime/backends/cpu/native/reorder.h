// A pack's codes in the order in which products read them, and their sums.
#pragma once

#include <cstdint>

#pragma GCC visibility push(default)
extern "C" {

struct ReorderArguments {
  const uint8_t* planes;  // as the pack has them: planes of 8, 4, 2, 1 bits, high ones first, rows
                          // padded to 32-bit words (artifacts/codec/bitpack.py)
  uint8_t* ordered;       // [panels][quads][kPanel][4], code - 2^(bits - 1); up to four bits
                          // [panels][quads][kPanel / 2][4], the codes themselves (half_bytes.h)
  int32_t* sums;          // [panels * kPanel]: of code - 2^(bits - 1), channel by channel
  int64_t rows;
  int64_t columns;
  int32_t bits;
  int32_t threads;
};

void qdit4sr_reorder(const ReorderArguments* arguments);

}
#pragma GCC visibility pop
