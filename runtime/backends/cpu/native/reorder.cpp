#include "reorder.h"

#include <cstring>
#include <vector>

#include "half_bytes.h"
#include "parallel.h"

namespace {

constexpr int kWidths[] = {8, 4, 2, 1};

int64_t row_bytes(int width, int64_t columns) { return divided_up(columns * width, 32) * 4; }

// Adds a plane's bits of one row below those that are there already.
template <int kWidth>
void add_plane(const uint8_t* packed, int64_t columns, uint8_t* codes) {
  constexpr int kPerByte = 8 / kWidth;
  constexpr uint8_t kMask = (1 << kWidth) - 1;
  const int64_t whole = columns / kPerByte;
  for (int64_t i = 0; i < whole; ++i)
    for (int j = 0; j < kPerByte; ++j) {
      uint8_t& code = codes[i * kPerByte + j];
      code = (uint8_t)(code << (kWidth & 7) | (packed[i] >> kWidth * j & kMask));
    }
  for (int64_t i = whole * kPerByte; i < columns; ++i)
    codes[i] =
        (uint8_t)(codes[i] << (kWidth & 7) | (packed[whole] >> kWidth * (i % kPerByte) & kMask));
}

void add_plane(int width, const uint8_t* packed, int64_t columns, uint8_t* codes) {
  switch (width) {
    case 8: return add_plane<8>(packed, columns, codes);
    case 4: return add_plane<4>(packed, columns, codes);
    case 2: return add_plane<2>(packed, columns, codes);
    default: return add_plane<1>(packed, columns, codes);
  }
}

// One panel: codes [kPanel][padded] of its channels -> ordered.
void order(const uint8_t* codes, int64_t padded, int bits, uint8_t* ordered) {
  const auto quad_of = [&](int channel, int64_t quad) {
    uint32_t four;
    std::memcpy(&four, codes + channel * padded + quad * 4, 4);
    return four;
  };
  const bool halves = bits <= kLargestHalfByte;
  const int stored = halves ? kPanel / 2 : kPanel;
  for (int64_t quad = 0; quad < padded / 4; ++quad)
    for (int channel = 0; channel < stored; ++channel) {
      uint32_t four = quad_of(channel, quad);
      if (halves) four |= quad_of(channel + kPanel / 2, quad) << 4;
      std::memcpy(ordered + (quad * stored + channel) * 4, &four, 4);
    }
}

}  // namespace

void qdit4sr_reorder(const ReorderArguments* arguments) {
  const ReorderArguments& a = *arguments;
  const int64_t padded = divided_up(a.columns, 4) * 4, panels = divided_up(a.rows, kPanel);
  const uint8_t middle = (uint8_t)(1 << (a.bits - 1));
  const int64_t panel_bytes = padded / 4 * stored_quad_bytes(a.bits);
  for_each_task(panels, a.threads, [&](int64_t panel) {
    // What is beyond the last channel or input weighs nothing: its code is the middle one.
    std::vector<uint8_t> codes(kPanel * padded, middle);
    for (int channel = 0; channel < kPanel; ++channel) {
      const int64_t row = panel * kPanel + channel;
      int32_t sum = 0;
      uint8_t* mine = codes.data() + channel * padded;
      if (row < a.rows) {
        std::memset(mine, 0, a.columns);
        const uint8_t* plane = a.planes;
        for (const int width : kWidths) {
          if (!(a.bits & width)) continue;
          const int64_t bytes = row_bytes(width, a.columns);
          add_plane(width, plane + row * bytes, a.columns, mine);
          plane += a.rows * bytes;
        }
        for (int64_t i = 0; i < a.columns; ++i) sum += mine[i];
        sum -= (int32_t)(a.columns * middle);
      }
      a.sums[panel * kPanel + channel] = sum;
    }
    if (a.bits > kLargestHalfByte)
      for (uint8_t& code : codes) code = (uint8_t)(code - middle);
    order(codes.data(), padded, a.bits, a.ordered + panel * panel_bytes);
  });
}
