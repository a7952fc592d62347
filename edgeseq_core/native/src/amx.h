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

// As many rows at a time as leave room for weights in the first cache.
size_t rows_together(size_t x_stride) {
  constexpr size_t bytes = 24 << 10;
  return bytes / x_stride < 64 ? 32 : bytes / x_stride / 32 * 32;
}

// Two blocks of up to 32 rows.  Rows after the last are read and dropped: there are kRowsAhead of them.
template <class Done>
EDGESEQ_INLINE void two_blocks(const Product& p, size_t row, size_t rows, size_t block, const Done& done) {
  alignas(64) int32_t sums[4][256];
  const Places& places = p.matrix.places;
  const bool two = block + 1 < p.last_block;
  const size_t steps = places.groups / 16, step = places.step(block), step2 = places.step(block + two);
  const int8_t* w = p.matrix.values + places.at(block);
  const int8_t* w2 = p.matrix.values + places.at(block + two);
  const int32_t* offset = p.matrix.offset + block * kLanes;
  const int32_t* offset2 = two ? offset + kLanes : offset;
  const uint8_t* x = p.x + row * p.x_stride;
  const size_t upper = rows < 16 ? rows : 16, lower = rows < 32 ? rows - upper : 16;
  _tile_loadd(0, offset, 0);  // every row starts there
  _tile_loadd(1, offset2, 0);
  if (lower) {
    const uint8_t* x2 = x + 16 * p.x_stride;
    _tile_loadd(2, offset, 0);
    _tile_loadd(3, offset2, 0);
    for (size_t k = 0; k < steps; k++) {
      _tile_loadd(4, x + k * 64, p.x_stride);
      _tile_loadd(6, w + k * 16 * step, step);
      _tile_loadd(7, w2 + k * 16 * step2, step2);
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
      _tile_loadd(6, w + k * 16 * step, step);
      _tile_loadd(7, w2 + k * 16 * step2, step2);
      _tile_dpbusd(0, 4, 6);
      _tile_dpbusd(1, 4, 7);
    }
  }
  _tile_stored(0, sums[0], 64);
  _tile_stored(1, sums[1], 64);
  for (size_t b = 0; b < 1u + two; b++) {
    done(row, upper, block + b, sums[b], kLanes);
    if (lower) done(row + 16, lower, block + b, sums[2 + b], kLanes);
  }
}

template <class Done>
void in_tiles(const Product& p, const Done& done) {
  static const TileShape shape;
  _tile_loadconfig(&shape);
  const size_t together = rows_together(p.x_stride);
  for (size_t first = 0; first < p.rows; first += together) {
    const size_t end = first + together < p.rows ? first + together : p.rows;
    for (size_t block = p.first_block; block < p.last_block; block += 2)
      for (size_t row = first; row < end; row += 32) two_blocks(p, row, end - row, block, done);
  }
  _tile_release();
}

template <class Done>
void products(const Product& p, const Done& done) {
  p.rows < kFewestRows ? in_strips(p, done) : in_tiles(p, done);
}
