// Products by AMX tiles: 16 rows of codes times 16 outputs, 64 columns at a time.
//
// Included inside `kernels_body.h` where the compiler has AMX.  Two tiles of rows and two of outputs share
// their loads; few rows go the AVX-512 way, whose sums are the same.

constexpr size_t kFewestRows = 12;

struct alignas(64) TileShape {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

template <class Done>
EDGESEQ_INLINE void finish_tile(const int32_t* sums, size_t row, size_t rows, size_t block,
                                const int32_t* offset, const Done& done) {
  const __m512i off = _mm512_loadu_si512(offset + block * kLanes);
  for (size_t r = 0; r < rows; r++)
    done(row + r, block, _mm512_add_epi32(_mm512_load_si512(sums + r * kLanes), off));
}

template <class Done>
void in_tiles(const Product& p, const Done& done) {
  static const TileShape shape;
  alignas(64) int32_t sums[4][256];
  _tile_loadconfig(&shape);
  const size_t steps = p.matrix.groups / 16, block_bytes = p.matrix.groups * 64;
  // Rows after the last are read and dropped: there are kRowsAhead of them.
  for (size_t block = p.first_block; block < p.last_block; block += 2) {
    const int8_t* w = p.matrix.values + block * block_bytes;
    const bool two = block + 1 < p.last_block;
    const int8_t* w2 = two ? w + block_bytes : w;
    for (size_t row = 0; row < p.rows; row += 32) {
      const uint8_t* x = p.x + row * p.x_stride;
      const size_t rows = p.rows - row;
      const size_t upper = rows < 16 ? rows : 16, lower = rows < 32 ? rows - upper : 16;
      _tile_zero(0);
      _tile_zero(1);
      if (lower) {
        _tile_zero(2);
        _tile_zero(3);
        const uint8_t* x2 = x + 16 * p.x_stride;
        for (size_t k = 0; k < steps; k++) {
          _tile_loadd(4, x + k * 64, p.x_stride);
          _tile_loadd(6, w + k * 1024, 64);
          _tile_loadd(7, w2 + k * 1024, 64);
          _tile_loadd(5, x2 + k * 64, p.x_stride);
          _tile_dpbusd(0, 4, 6);
          _tile_dpbusd(1, 4, 7);
          _tile_dpbusd(2, 5, 6);
          _tile_dpbusd(3, 5, 7);
        }
        _tile_stored(2, sums[2], 64);
        _tile_stored(3, sums[3], 64);
      } else {
        for (size_t k = 0; k < steps; k++) {
          _tile_loadd(4, x + k * 64, p.x_stride);
          _tile_loadd(6, w + k * 1024, 64);
          _tile_loadd(7, w2 + k * 1024, 64);
          _tile_dpbusd(0, 4, 6);
          _tile_dpbusd(1, 4, 7);
        }
      }
      _tile_stored(0, sums[0], 64);
      _tile_stored(1, sums[1], 64);
      finish_tile(sums[0], row, upper, block, p.matrix.offset, done);
      finish_tile(sums[2], row + 16, lower, block, p.matrix.offset, done);
      if (two) {
        finish_tile(sums[1], row, upper, block + 1, p.matrix.offset, done);
        finish_tile(sums[3], row + 16, lower, block + 1, p.matrix.offset, done);
      }
    }
  }
  _tile_release();
}

template <class Done>
void products(const Product& p, const Done& done) {
  p.rows < kFewestRows ? in_strips(p, done) : in_tiles(p, done);
}
