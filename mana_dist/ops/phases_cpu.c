/* Patch matching and sorting by sub-pixel phase on a CPU: see phases.py for what is computed.
 *
 * Plain C that compilers turn into vector code by themselves. Every function works on rows [begin, end); ranges may run
 * at the same time, and the results do not depend on how the rows are split.
 *
 * Planes are padded: `row` floats from one row to the next, EDGE replicated rows above and below, MARGIN replicated columns
 * on both sides, so that patches and neighbourhoods never leave them. Pointers lead to pixel (0, 0) of the frame.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Columns of one run of pixels that share their start in the fine search: one cell of the coarse level. */
#define CELL 4
/* Largest side of a patch; it bounds arrays on the stack. */
#define PATCH 15
#define WIDEST_HOOD 7
#define MOST_BINS 4

/* One level of the search. Strides in floats between frames; `mean` and `scale` are (T, height, width), unpadded. */
struct level {
    const float *grey, *mean, *scale;
    int64_t frame, row, height, width;
};

/* patch, window and the others: sides, odd. A coarse window of 0 leaves the coarse level out. */
struct search {
    int64_t frames, patch, window, coarse_window, refine;
};

/* The matches of some rows: (T - 1, rows, width) each. */
struct matches {
    float *score;
    int32_t *y, *x;
    float *down, *right;
};

static inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

/* The share of the mean that stays in a normalised patch, as it enters the product of two: see descriptors in phases.py. */
#define KEPT 0.99f

/* Sums over patch rows of the products of two frames: out[i] for the columns first - reach + i, i in [0, count). */
static inline void products(const float *restrict a, const float *restrict b, int64_t row, int64_t patch, int64_t count,
                            float *restrict out) {
    int64_t reach = patch / 2;
    const float *p = a - reach * row, *q = b - reach * row;
    for (int64_t i = 0; i < count; i++) out[i] = p[i] * q[i];
    for (int64_t k = 1; k < patch; k++) {
        p += row;
        q += row;
        for (int64_t i = 0; i < count; i++) out[i] += p[i] * q[i];
    }
}

/* Takes the candidates at one shift into the best matches of a run of pixels. `sums` are products() of the run, `patch` / 2
 * columns earlier; `code` names the shift. Of equal scores the first one taken stays. */
static inline void take(const float *restrict sums, int64_t patch, const float *restrict mean, const float *restrict scale,
                        const float *restrict other_mean, const float *restrict other_scale, int64_t count, int32_t code,
                        float *restrict best, int32_t *restrict winner) {
    float area = KEPT * (float)(patch * patch);
    for (int64_t i = 0; i < count; i++) {
        float sum = sums[i];
        for (int64_t k = 1; k < patch; k++) sum += sums[i + k];
        float score = (sum - area * mean[i] * other_mean[i]) * (scale[i] * other_scale[i]);
        int32_t better = score > best[i];
        best[i] = better ? score : best[i];
        winner[i] = better ? code : winner[i];
    }
}

/* The same with the patch's side as a constant, so that its loops are unrolled. */
static void take_any(const float *sums, int64_t patch, const float *mean, const float *scale, const float *other_mean,
                     const float *other_scale, int64_t count, int32_t code, float *best, int32_t *winner) {
    if (patch == 7) take(sums, 7, mean, scale, other_mean, other_scale, count, code, best, winner);
    else if (patch == 5) take(sums, 5, mean, scale, other_mean, other_scale, count, code, best, winner);
    else take(sums, patch, mean, scale, other_mean, other_scale, count, code, best, winner);
}

static void products_any(const float *a, const float *b, int64_t row, int64_t patch, int64_t count, float *out) {
    if (patch == 7) products(a, b, row, 7, count, out);
    else if (patch == 5) products(a, b, row, 5, count, out);
    else products(a, b, row, patch, count, out);
}

/* The best match of the pixels [left, right) of row y around their own place in frame `other`, as window positions in
 * row-major order. `sums` has room for a padded row. */
static void search_in_place(const struct level *level, int64_t centre, int64_t other, int64_t patch, int64_t window, int64_t y,
                            int64_t left, int64_t right, float *best, int32_t *winner, float *sums) {
    int64_t reach = window / 2, half = patch / 2, area = level->height * level->width;
    const float *here = level->grey + centre * level->frame + y * level->row;
    const float *mean = level->mean + centre * area + y * level->width;
    const float *scale = level->scale + centre * area + y * level->width;
    /* A pixel whose scores are all NaN keeps its own place. */
    int32_t in_place = (int32_t)(reach * window + reach);
    for (int64_t i = left; i < right; i++) best[i - left] = -INFINITY, winner[i - left] = in_place;
    for (int64_t down = max(-reach, -y); down <= min(reach, level->height - 1 - y); down++)
        for (int64_t aside = -reach; aside <= reach; aside++) {
            int64_t first = max(left, -aside), last = min(right, level->width - aside), count = last - first;
            if (count <= 0) continue;
            const float *there = level->grey + other * level->frame + (y + down) * level->row + aside;
            int64_t place = other * area + (y + down) * level->width + first + aside;
            products_any(here + first - half, there + first - half, level->row, patch, count + 2 * half, sums);
            take_any(sums, patch, mean + first, scale + first, level->mean + place, level->scale + place, count,
                     (int32_t)((down + reach) * window + aside + reach), best + first - left, winner + first - left);
        }
}

/* The likeness of the patch at (y, x) of the centre frame and that at (v, u) of another. */
static float likeness(const struct level *level, int64_t centre, int64_t other, int64_t patch, int64_t y, int64_t x, int64_t v,
                      int64_t u) {
    int64_t half = patch / 2, area = level->height * level->width;
    const float *a = level->grey + centre * level->frame + (y - half) * level->row + x - half;
    const float *b = level->grey + other * level->frame + (v - half) * level->row + u - half;
    float lanes[16] = {0}, sum = 0;
    for (int64_t k = 0; k < patch; k++, a += level->row, b += level->row)
        if (patch == 7)
            for (int i = 0; i < 7; i++) lanes[i] += a[i] * b[i];
        else
            for (int64_t i = 0; i < patch; i++) lanes[i] += a[i] * b[i];
    for (int i = 0; i < PATCH; i++) sum += lanes[i];
    int64_t p = centre * area + y * level->width + x, q = other * area + v * level->width + u;
    return (sum - KEPT * (float)(patch * patch) * level->mean[p] * level->mean[q]) * (level->scale[p] * level->scale[q]);
}

/* Where the parabola through three scores, the middle one the largest, has its top: in [-0.5, 0.5]. */
static float top_of(float before, float middle, float after) {
    float top = 0.5f * (before - after) / fminf(before + after - 2 * middle, -1e-4f);
    return fminf(fmaxf(top, -0.5f), 0.5f);
}

/* The coarse search: for cells [begin, end) of the coarse level, all of its columns, the offset of the best match in coarse
 * pixels. offsets: (T - 1, coarse height, coarse width, 2). `scratch`: 3 padded rows. */
void phases_coarse(const struct level *level, const struct search *search, int64_t begin, int64_t end, int32_t *offsets,
                   float *scratch) {
    int64_t centre = search->frames / 2, reach = search->coarse_window / 2;
    float *best = scratch, *sums = scratch + 2 * level->row;
    int32_t *winner = (int32_t *)(scratch + level->row);
    for (int64_t unit = begin; unit < end; unit++) {
        int64_t neighbour = unit / level->height, y = unit % level->height;
        int64_t other = neighbour + (neighbour >= centre);
        search_in_place(level, centre, other, search->patch, search->coarse_window, y, 0, level->width, best, winner, sums);
        int32_t *out = offsets + (neighbour * level->height + y) * level->width * 2;
        for (int64_t x = 0; x < level->width; x++) {
            out[2 * x] = (int32_t)(winner[x] / search->coarse_window - reach);
            out[2 * x + 1] = (int32_t)(winner[x] % search->coarse_window - reach);
        }
    }
}

/* The matches of rows [begin, end) of all neighbours: units of one neighbour and one row. `offsets`: what
 * phases_coarse() found, or NULL. `scratch`: 4 padded rows. */
void phases_match(const struct level *level, const struct level *coarse, const struct search *search,
                  int64_t begin, int64_t end, const int32_t *offsets, const struct matches *matches, float *scratch) {
    int64_t centre = search->frames / 2, window = search->window, patch = search->patch, half = patch / 2;
    int64_t rows = level->height, columns = level->width, area = rows * columns;
    float *best = scratch, *sums = scratch + 2 * level->row, near[CELL + PATCH + 1];
    int32_t *winner = (int32_t *)(scratch + level->row);
    for (int64_t unit = begin; unit < end; unit++) {
        int64_t neighbour = unit / rows, y = unit % rows, other = neighbour + (neighbour >= centre);
        search_in_place(level, centre, other, patch, window, y, 0, columns, best, winner, sums);
        int32_t *out_y = matches->y + unit * columns, *out_x = matches->x + unit * columns;
        for (int64_t i = 0; i < columns; i++) {
            out_y[i] = (int32_t)(y + winner[i] / window - window / 2);
            out_x[i] = (int32_t)(i + winner[i] % window - window / 2);
        }
        if (offsets) {
            /* What lies in the window was taken already, and is not likelier than the best. */
            int64_t reach = search->refine / 2, within = window / 2, cell_y = min(y / CELL, coarse->height - 1);
            for (int64_t left = 0, next; left < columns; left = next) {
                int64_t cell = min(left / CELL, coarse->width - 1);
                next = min((left / CELL + 1) * CELL, columns);
                const int32_t *offset = offsets + ((neighbour * coarse->height + cell_y) * coarse->width + cell) * 2;
                for (int64_t v = y + CELL * offset[0] - reach; v <= y + CELL * offset[0] + reach; v++) {
                    if (v < 0 || v >= rows) continue;
                    for (int64_t aside = CELL * offset[1] - reach; aside <= CELL * offset[1] + reach; aside++) {
                        int64_t first = max(left, -aside), count = min(next, columns - aside) - first;
                        if (count <= 0 || (llabs(v - y) <= within && llabs(aside) <= within)) continue;
                        int64_t p = centre * area + y * columns + first;
                        int64_t q = other * area + v * columns + first + aside;
                        const float *here = level->grey + centre * level->frame + y * level->row + first;
                        const float *there = level->grey + other * level->frame + v * level->row + first + aside;
                        int32_t won[CELL] = {0};
                        products_any(here - half, there - half, level->row, patch, count + 2 * half, near);
                        take_any(near, patch, level->mean + p, level->scale + p, level->mean + q, level->scale + q, count, 1,
                                 best + first, won);
                        for (int64_t i = 0; i < count; i++)
                            if (won[i]) {
                                out_y[first + i] = (int32_t)v;
                                out_x[first + i] = (int32_t)(first + aside + i);
                            }
                    }
                }
            }
        }
        float *score = matches->score + unit * columns, *down = matches->down + unit * columns;
        float *right = matches->right + unit * columns;
        for (int64_t i = 0; i < columns; i++) {
            int64_t v = out_y[i], u = out_x[i];
            score[i] = best[i];
            down[i] = v > 0 && v < rows - 1
                          ? top_of(likeness(level, centre, other, patch, y, i, v - 1, u), best[i],
                                   likeness(level, centre, other, patch, y, i, v + 1, u))
                          : 0;
            right[i] = u > 0 && u < columns - 1
                           ? top_of(likeness(level, centre, other, patch, y, i, v, u - 1), best[i],
                                    likeness(level, centre, other, patch, y, i, v, u + 1))
                           : 0;
        }
    }
}

/* The neighbourhood of a pixel, channel by channel, row by row. */
static inline void fetch(const float *restrict pixel, int64_t plane, int64_t row, int64_t hood, float *restrict out) {
    int64_t half = hood / 2;
    for (int c = 0; c < 3; c++, pixel += plane)
        for (int64_t k = -half; k <= half; k++, out += hood)
            for (int64_t i = 0; i < hood; i++) out[i] = pixel[k * row + i - half];
}

static inline float share(float place, int64_t bin) { return fmaxf(0, 1 - fabsf(place - (float)bin)); }

/* The phases of rows [begin, end) of `rows` rows that begin at `top`, counted from there.
 *
 * frames: pixel (0, 0) of frame 0's first channel; strides to the next frame, channel and row. out: (rows, columns,
 * bins * bins * (3 * hood * hood + 1)). */
void phases_sort(const float *frames, int64_t frame, int64_t plane, int64_t row, int64_t count, int64_t top,
                 int64_t rows, int64_t columns, const struct matches *matches, int64_t hood, int64_t bins, int64_t begin,
                 int64_t end, float *out) {
    int64_t centre = count / 2, size = 3 * hood * hood, parts = bins * bins;
    float own[3 * WIDEST_HOOD * WIDEST_HOOD], values[3 * WIDEST_HOOD * WIDEST_HOOD];
    float sums[MOST_BINS * MOST_BINS][3 * WIDEST_HOOD * WIDEST_HOOD], total[MOST_BINS * MOST_BINS];
    out += begin * columns * parts * (size + 1);
    for (int64_t line = begin; line < end; line++)
        for (int64_t i = 0; i < columns; i++, out += parts * (size + 1)) {
            const float *pixel = frames + (top + line) * row + i;
            fetch(pixel + centre * frame, plane, row, hood, own);
            for (int64_t b = 0; b < parts; b++) {
                total[b] = 0;
                for (int64_t k = 0; k < size; k++) sums[b][k] = 0;
            }
            for (int64_t neighbour = 0; neighbour < count - 1; neighbour++) {
                int64_t place = (neighbour * rows + line) * columns + i;
                float confidence = fminf(fmaxf((matches->score[place] - 0.5f) / 0.5f, 0), 1);
                if (!(confidence > 0)) continue;
                const float *other = frames + (neighbour + (neighbour >= centre)) * frame;
                fetch(other + matches->y[place] * row + matches->x[place], plane, row, hood, values);
                for (int64_t k = 0; k < size; k++) values[k] -= own[k];
                float down = (0.5f - matches->down[place]) * (float)bins - 0.5f;
                float right = (0.5f - matches->right[place]) * (float)bins - 0.5f;
                for (int64_t v = 0; v < bins; v++)
                    for (int64_t u = 0; u < bins; u++) {
                        float weight = share(down, v) * share(right, u) * confidence;
                        if (!(weight > 0)) continue;
                        float *sum = sums[v * bins + u];
                        total[v * bins + u] += weight;
                        for (int64_t k = 0; k < size; k++) sum[k] += weight * values[k];
                    }
            }
            for (int64_t b = 0; b < parts; b++) {
                float by = 1 / (total[b] + 0.2f);
                for (int64_t k = 0; k < size; k++) out[b * size + k] = sums[b][k] * by;
                out[parts * size + b] = total[b];
            }
        }
}
