/* One-hot attention on a CPU: scores, running maximum and gather in one pass; compiled by setup.py, several times with
 * the flags of different processors, and called by fused_cpu.py.
 *
 * Plain C with the vector extensions of GCC and Clang: no headers of Python or a framework, so one build serves all of
 * their versions, and no threads of its own, so that it never meets another OpenMP runtime. Every function works on a range [begin, end) of
 * rows; ranges may run at the same time, and the results do not depend on how the rows are split.
 *
 * Sums are float32; query, key, value, output and its gradient are float32 or bfloat16. Tensors that are read have any strides, though channels that lie next to each other are the
 * fastest; tensors that are written have their channels next to each other.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

/* Says which version of the sources a library was built from. */
const char kernel_sources[] = SOURCES;

/* One machine register of floats. */
#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define BYTES (4 * LANES)

typedef float vec __attribute__((vector_size(BYTES)));
typedef int32_t ivec __attribute__((vector_size(BYTES)));

/* Columns worked on together: a packed row of keys and one of queries then stay in the first-level cache, and the rows
 * of a window in the second-level cache, whatever the width of the frame. A multiple of every LANES. */
#define TILE 64
/* Sums kept in registers at once, one per horizontal shift: enough to hide the latency of a multiply-add, and with the
 * query they fit the 16 registers of AVX2. Wider windows take several passes. */
#define GROUP 9

/* (batch, frame, row, column, channel); strides in numbers of `size` bytes: 4 for float32, 2 for bfloat16. */
struct tensor {
    char *data;
    int64_t batch, frame, row, column, channel, size;
};

/* How far a window reaches to each side is at most height - 1 and width - 1. `words` is how many words of 32 bits the
 * forward pass sees in a pixel of query and key: one for each channel or, where they are given as pairs of bfloat16, for
 * each two. */
struct sizes {
    int64_t frames, channels, height, width, reach_y, reach_x, words;
};

static inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

static inline void *row_of(const struct tensor *a, int64_t batch, int64_t frame, int64_t y) {
    return a->data + (batch * a->batch + frame * a->frame + y * a->row) * a->size;
}

/* A bfloat16 is the upper half of a float32. */
static inline float widened(uint16_t a) {
    uint32_t bits = (uint32_t)a << 16;
    float wide;
    memcpy(&wide, &bits, 4);
    return wide;
}

/* To the nearest bfloat16, of two the even one; NaN stays NaN. */
static inline uint16_t narrowed(float a) {
    uint32_t bits;
    memcpy(&bits, &a, 4);
    uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, nan = bits >> 16 | 0x40;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? nan : rounded);
}

/* The channels of one pixel of a row as float32, next to each other: where they lie, or else copied to `scratch`. */
static inline const float *pixel_of(const struct tensor *a, const void *row, int64_t x, int64_t channels,
                                    float *restrict scratch) {
    if (a->size == 2) {
        const uint16_t *half = (const uint16_t *)row + x * a->column;
        if (a->channel == 1)
            for (int64_t c = 0; c < channels; c++) scratch[c] = widened(half[c]);
        else
            for (int64_t c = 0; c < channels; c++) scratch[c] = widened(half[c * a->channel]);
        return scratch;
    }
    const float *pixel = (const float *)row + x * a->column;
    if (a->channel == 1) return pixel;
    for (int64_t c = 0; c < channels; c++) scratch[c] = pixel[c * a->channel];
    return scratch;
}

static inline vec load(const float *from) {
    vec a;
    memcpy(&a, from, BYTES); /* one unaligned load */
    return a;
}

static inline vec fill(float a) { return (vec){0} + a; }
static inline ivec fill_int(int32_t a) { return (ivec){0} + a; }
static inline vec choose(ivec mask, vec a, vec b) { return (vec)((mask & (ivec)a) | (~mask & (ivec)b)); }
static inline ivec choose_int(ivec mask, ivec a, ivec b) { return (mask & a) | (~mask & b); }

static inline ivec lane_numbers(void) {
    ivec lanes;
    for (int i = 0; i < LANES; i++) lanes[i] = i;
    return lanes;
}

/* Forward ---------------------------------------------------------------------------------------------------------- */

/* Floats between two channels of a packed row: an odd number of cache lines, so that the channels of one column spread
 * over all sets of the cache. */
static int64_t line_of(const struct sizes *sizes) { return (TILE + 2 * sizes->reach_x + 15) / 16 * 16 | 16; }

static int64_t tiles_of(const struct sizes *sizes) { return (sizes->width + TILE - 1) / TILE; }

/* Rows of work in one batch entry: every row of every tile of every frame. */
int64_t one_hot_forward_rows(const struct sizes *sizes) { return sizes->frames * tiles_of(sizes) * sizes->height; }

/* Floats of scratch memory for one range: the window's rows of keys, a row of queries, and one pixel. */
int64_t one_hot_forward_scratch(const struct sizes *sizes) {
    return (2 * sizes->reach_y + 2) * line_of(sizes) * sizes->words + sizes->channels;
}

/* Columns [first, first + count) of a row as out[channel * line + column], zero outside the frame: neighbouring pixels
 * come to lie next to each other, so that one register holds the same channel of LANES pixels at any shift. */
static void pack(const struct tensor *from, const float *restrict row, int64_t first, int64_t count,
                 const struct sizes *sizes, float *restrict out) {
    int64_t line = line_of(sizes), channels = sizes->words, column = from->column, channel = from->channel;
    int64_t begin = min(max(-first, 0), count), end = max(begin, min(count, sizes->width - first));
    row += first * column;
    for (int64_t c = 0; c < channels; c++) {
        memset(out + c * line, 0, begin * sizeof(float));
        memset(out + c * line + end, 0, (count - end) * sizeof(float));
    }
    if (column == 1) {
        for (int64_t c = 0; c < channels; c++)
            memcpy(out + c * line + begin, row + c * channel + begin, (end - begin) * sizeof(float));
        return;
    }
    /* Squares of 4 x 4, which the compiler turns into shuffles of registers, then what is left at the edges. */
    int64_t whole_columns = channel == 1 ? begin + (end - begin) / 4 * 4 : begin, whole_channels = channels / 4 * 4;
    for (int64_t i = begin; i < whole_columns; i += 4)
        for (int64_t c = 0; c < whole_channels; c += 4) {
            float square[4][4];
            for (int j = 0; j < 4; j++)
                for (int k = 0; k < 4; k++) square[j][k] = row[(i + k) * column + c + j];
            for (int j = 0; j < 4; j++) memcpy(out + (c + j) * line + i, square[j], sizeof square[j]);
        }
    for (int64_t i = begin; i < end; i++)
        for (int64_t c = i < whole_columns ? whole_channels : 0; c < channels; c++)
            out[c * line + i] = row[i * column + c * channel];
}

/* The best match so far of LANES pixels: the score, and the position of the key relative to the pixel's own. */
struct best {
    vec score;
    ivec offset;
};

/* Whether the processor has products of pairs of bfloat16. */
int one_hot_pairs(void) {
#ifdef __AVX512BF16__
    return 1;
#else
    return 0;
#endif
}

/* `sum` with the product of two words added: a number each, or two bfloat16 each. */
static inline __attribute__((always_inline)) vec add_product(const int pairs, vec sum, vec a, vec b) {
#ifdef __AVX512BF16__
    if (pairs) return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
    (void)pairs;
#endif
    return sum + a * b;
}

/* Scores of LANES pixels against one row of keys at `count` shifts, taken into the best match so far.
 * `left` and `right` are the shifts (relative to the first one) at which lane 0 would meet column 0 of the frame, and
 * the column after its last. */
static inline __attribute__((always_inline)) void match(const int pairs, const int count, const float *query, const float *key,
                                                        int64_t channels, int64_t line, int64_t left, int64_t right,
                                                        int32_t offset, struct best *best) {
    vec sums[GROUP];
    for (int i = 0; i < count; i++) sums[i] = fill(0);
    for (int64_t c = 0; c < channels; c++) {
        vec q = load(query + c * line);
#pragma GCC unroll 16
        for (int i = 0; i < count; i++) sums[i] = add_product(pairs, sums[i], q, load(key + c * line + i));
    }
    if (left > 0 || right < count - 1 + LANES) {
        /* A score of -inf cannot win: it is not greater than anything. */
        ivec lanes = lane_numbers(), after_left = lanes - (int32_t)left, after_right = lanes - (int32_t)right;
#pragma GCC unroll 16
        for (int i = 0; i < count; i++)
            sums[i] = choose((after_left + i >= 0) & (after_right + i < 0), sums[i], fill(-INFINITY));
    }
    struct best now = *best;
#pragma GCC unroll 16
    for (int i = 0; i < count; i++) {
        /* Greater, or the first NaN: "not less or equal" is true of a NaN, and nothing wins over one. */
        ivec wins = ~(sums[i] <= now.score) & (now.score == now.score);
        now.score = choose(wins, sums[i], now.score);
        now.offset = choose_int(wins, fill_int(offset + i), now.offset);
    }
    *best = now;
}

/* `match` with the number of shifts known to the compiler, so that the sums live in registers. */
static void match_group(int pairs, int64_t count, const float *query, const float *key, int64_t channels, int64_t line,
                        int64_t left, int64_t right, int32_t offset, struct best *best) {
    switch (pairs ? -count : count) {
#define CASE(N) \
    case N: match(0, N, query, key, channels, line, left, right, offset, best); break; \
    case -N: match(1, N, query, key, channels, line, left, right, offset, best); break;
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9)
#undef CASE
    }
}

/* Winners of one row of a tile. `keys` is a ring of packed rows: row y is at place y % window height. */
static void match_row(const float *query, const float *keys, const struct sizes *sizes, int64_t y, int64_t first,
                      struct best *best) {
    int64_t line = line_of(sizes), width = sizes->width, reach = sizes->reach_x, shifts = 2 * reach + 1;
    int64_t blocks = (min(TILE, width - first) + LANES - 1) / LANES, ring = 2 * sizes->reach_y + 1;
    int64_t top = max(0, y - sizes->reach_y), bottom = min(sizes->height - 1, y + sizes->reach_y);
    int64_t groups = (shifts + GROUP - 1) / GROUP, words = sizes->words;

    /* Before anything has been seen the first position inside the frame holds the place at -inf: what is greater, or
     * NaN, takes it, and where every score is -inf it stays. */
    for (int64_t block = 0; block < blocks; block++) {
        ivec x = lane_numbers() + (int32_t)(first + block * LANES), left = x - (int32_t)reach;
        best[block].score = fill(-INFINITY);
        best[block].offset = (left & (left > 0)) - x + (int32_t)((top - y) * width);
    }
    for (int64_t key_y = top; key_y <= bottom; key_y++) {
        const float *key = keys + key_y % ring * words * line;
        for (int64_t block = 0; block < blocks; block++)
            for (int64_t group = 0; group < groups; group++) {
                int64_t shift = group * shifts / groups, next = (group + 1) * shifts / groups;
                int64_t x = block * LANES, key_x = first + x + shift - reach; /* of lane 0 */
                match_group(words != sizes->channels, next - shift, query + x, key + x + shift, words, line, -key_x,
                            width - key_x, (int32_t)((key_y - y) * width + shift - reach), best + block);
            }
    }
}

void one_hot_forward(const struct tensor *query, const struct tensor *key, const struct tensor *value,
                     const struct tensor *output, float *score, int32_t *index, const struct sizes *sizes,
                     int64_t begin, int64_t end, float *scratch) {
    int64_t height = sizes->height, width = sizes->width, channels = sizes->channels;
    int64_t reach_y = sizes->reach_y, reach_x = sizes->reach_x, ring = 2 * reach_y + 1, tiles = tiles_of(sizes);
    int64_t plane = sizes->words * line_of(sizes);
    float *keys = scratch, *packed_query = keys + ring * plane, *pixel_values = packed_query + plane;
    struct best best[TILE / LANES];

    for (int64_t unit = begin; unit < end; unit++) {
        int64_t y = unit % height, first = unit / height % tiles * TILE, count = min(TILE, width - first);
        int64_t frame = unit / height / tiles % sizes->frames, batch = unit / height / tiles / sizes->frames;
        int64_t padded = (count + LANES - 1) / LANES * LANES;

        /* The ring holds the rows above from the unit before, unless this is the first one of a tile. */
        int64_t fresh = unit == begin || y == 0 ? max(0, y - reach_y) : y + reach_y;
        for (int64_t row = fresh; row <= min(height - 1, y + reach_y); row++)
            pack(key, row_of(key, batch, frame, row), first - reach_x, padded + 2 * reach_x, sizes,
                 keys + row % ring * plane);
        pack(query, row_of(query, batch, frame, y), first, padded, sizes, packed_query);
        match_row(packed_query, keys, sizes, y, first, best);

        int64_t pixel = ((batch * sizes->frames + frame) * height + y) * width + first;
        for (int64_t i = 0; i < count; i++) {
            float s = best[i / LANES].score[i % LANES];
            int64_t position = y * width + first + i + best[i / LANES].offset[i % LANES];
            const void *values = row_of(value, batch, frame, position / width);
            const float *from = pixel_of(value, values, position % width, channels, pixel_values);
            void *row = row_of(output, batch, frame, y);
            if (output->size == 2) {
                uint16_t *restrict to = (uint16_t *)row + (first + i) * output->column;
                for (int64_t c = 0; c < channels; c++) to[c] = narrowed(s * from[c]);
            } else {
                float *restrict to = (float *)row + (first + i) * output->column;
                for (int64_t c = 0; c < channels; c++) to[c] = s * from[c];
            }
            score[pixel + i] = s;
            index[pixel + i] = (int32_t)position;
        }
    }
}

/* Backward --------------------------------------------------------------------------------------------------------- */

static float dot(const float *a, const float *b, int64_t count) {
    vec even = fill(0), odd = fill(0);
    int64_t c = 0;
    for (; c + 2 * LANES <= count; c += 2 * LANES) {
        even += load(a + c) * load(b + c);
        odd += load(a + c + LANES) * load(b + c + LANES);
    }
    even += odd;
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += even[i];
    for (; c < count; c++) sum += a[c] * b[c];
    return sum;
}

static void add_scaled(float *restrict to, float scale, const float *restrict from, int64_t count) {
    for (int64_t c = 0; c < count; c++) to[c] += scale * from[c];
}

static void clear_rows(const struct tensor *a, const struct sizes *sizes, int64_t batch, int64_t frame, int64_t begin,
                       int64_t end) {
    for (int64_t y = begin; y < end; y++)
        for (int64_t x = 0; x < sizes->width; x++)
            memset((float *)row_of(a, batch, frame, y) + x * a->column, 0, sizes->channels * sizeof(float));
}

/* Gradients of keys and values in a range of the keys' rows, and of the scores of the pixels whose match lies there.
 *
 * A range takes, of the pixels whose windows meet its rows, those that chose one of them, in row-major order: no two
 * ranges write to one place, and every sum has the same order whatever the ranges. Each of the three may be null. Scratch is 3 C. */
void one_hot_backward_frames(const struct tensor *grad_output, const struct tensor *query, const struct tensor *value,
                             const float *score, const int32_t *index, const struct sizes *sizes, int64_t begin,
                             int64_t end, float *grad_score, const struct tensor *grad_key,
                             const struct tensor *grad_value, float *scratch) {
    int64_t height = sizes->height, width = sizes->width, channels = sizes->channels;
    for (int64_t unit = begin, next; unit < end; unit = next) {
        int64_t frame = unit / height % sizes->frames, batch = unit / height / sizes->frames;
        int64_t from_y = unit % height, to_y = min(height, from_y + end - unit);
        next = unit + to_y - from_y;
        if (grad_key) clear_rows(grad_key, sizes, batch, frame, from_y, to_y);
        if (grad_value) clear_rows(grad_value, sizes, batch, frame, from_y, to_y);

        int64_t top = max(0, from_y - sizes->reach_y), bottom = min(height, to_y + sizes->reach_y);
        for (int64_t y = top; y < bottom; y++)
            for (int64_t x = 0; x < width; x++) {
                int64_t pixel = ((batch * sizes->frames + frame) * height + y) * width + x;
                int64_t position = index[pixel];
                if (position < from_y * width || position >= to_y * width) continue;
                int64_t key_y = position / width, key_x = position % width;
                const void *grads = row_of(grad_output, batch, frame, y);
                const float *grad = pixel_of(grad_output, grads, x, channels, scratch);
                if (grad_value)
                    add_scaled((float *)row_of(grad_value, batch, frame, key_y) + key_x * grad_value->column, score[pixel],
                               grad, channels);
                if (grad_score) {
                    const void *values = row_of(value, batch, frame, key_y);
                    grad_score[pixel] =
                        dot(grad, pixel_of(value, values, key_x, channels, scratch + channels), channels);
                }
                if (grad_key) {
                    const void *queries = row_of(query, batch, frame, y);
                    add_scaled((float *)row_of(grad_key, batch, frame, key_y) + key_x * grad_key->column, grad_score[pixel],
                               pixel_of(query, queries, x, channels, scratch + 2 * channels), channels);
                }
            }
    }
}

/* Gradient of the query in a range of its rows: the sum over the frames, in their order. Scratch is C. */
void one_hot_backward_query(const struct tensor *key, const int32_t *index, const float *grad_score,
                            const struct sizes *sizes, int64_t begin, int64_t end, const struct tensor *grad_query,
                            float *scratch) {
    int64_t height = sizes->height, width = sizes->width, channels = sizes->channels;
    for (int64_t unit = begin; unit < end; unit++) {
        int64_t y = unit % height, batch = unit / height;
        clear_rows(grad_query, sizes, batch, 0, y, y + 1);
        for (int64_t x = 0; x < width; x++)
            for (int64_t frame = 0; frame < sizes->frames; frame++) {
                int64_t pixel = ((batch * sizes->frames + frame) * height + y) * width + x;
                const void *keys = row_of(key, batch, frame, index[pixel] / width);
                add_scaled((float *)row_of(grad_query, batch, 0, y) + x * grad_query->column, grad_score[pixel],
                           pixel_of(key, keys, index[pixel] % width, channels, scratch), channels);
            }
    }
}
