// SVD-G's rows reach over all inputs, those of SVD-L over one block of columns each: in the rotated
// domain a token costs (r + P) products per input, where P blocks stand above each other, not
// r + P Q as a dense product would.
#include "factors.h"

#include "multiply.h"
#include "parallel.h"

namespace {

template <int Rows>
void down_tile(const DownArguments& a, const DownPiece& piece, int64_t row) {
  const float* z = a.rotated + row * a.size + piece.column;
  const float* down = a.down + piece.weight;
  Floats sum[Rows][2] = {};
  multiply_apart<Rows>(z, a.size, down, kPanel, piece.columns, sum);
  for (int r = 0; r < Rows; ++r) {
    float values[kPanel];
    for (int v = 0; v < 2; ++v) store(values + v * kLanes, sum[r][v]);
    float* to = a.coordinates + (row + r) * a.rank + piece.coordinate;
    for (int64_t i = 0; i < piece.count; ++i) to[i * piece.apart] = values[i];
  }
}

template <int Rows = kRows>
inline void down_rows(int rows, const DownArguments& a, const DownPiece& piece, int64_t row) {
  if (rows == Rows) return down_tile<Rows>(a, piece, row);
  if constexpr (Rows > 1) down_rows<Rows - 1>(rows, a, piece, row);
}

constexpr int64_t kTaskRows = 24;

}  // namespace

void qdit4sr_down(const DownArguments* arguments) {
  const DownArguments& a = *arguments;
  for_each_task(divided_up(a.tokens, kTaskRows), a.threads, [&](int64_t task) {
    const int64_t begin = task * kTaskRows, end = smaller_of(a.tokens, begin + kTaskRows);
    for (int64_t i = 0; i < a.piece_count; ++i) {
      for (int64_t row = begin; row < end; row += kRows) {
        down_rows((int)smaller_of(kRows, end - row), a, a.pieces[i], row);
      }
    }
  });
}
