/* What torch does in several passes through memory, in one. The same operations on every element, in the same order
 * and with the same roundings: wn_dqn/kernels.py compiles this with -ffp-contract=off, so that a multiplication and an
 * addition are fused where fmaf says so and nowhere else.
 */
#include <math.h>
#include <stdint.h>

#define WORTH_A_SECOND_THREAD 32768 /* elements; torch's own measure */

/* One step of Adamax on n elements: m = lerp(m, d, w); u = max(beta2 u, |d| + epsilon); x -= step_size m / u; w is
 * 1 - beta1. torch's lerp starts from the nearer end, and each way wants a loop of its own to be vectorized.
 */
#define ADAMAX(LERP)                                                          \
  _Pragma("omp parallel for schedule(static) if (n > WORTH_A_SECOND_THREAD)") \
  for (int64_t i = 0; i < n; i++) {                                           \
    const float mean = LERP;                                                  \
    const float faded = u[i] * beta2, size = fabsf(d[i]) + epsilon;           \
    /* NaN if either is */                                                    \
    const float largest = (size > faded) | (size != size) ? size : faded;     \
    m[i] = mean;                                                              \
    u[i] = largest;                                                           \
    x[i] += -step_size * mean / largest;                                      \
  }

static void adamax_one(float *restrict x, const float *restrict d, float *restrict m, float *restrict u, int64_t n,
                       float step_size, float w, float beta2, float epsilon) {
  if (w < 0.5f) {
    ADAMAX(fmaf(w, d[i] - m[i], m[i]))
  } else {
    ADAMAX(fmaf(w - 1.0f, d[i] - m[i], d[i]))
  }
}

/* The same for `count` parameters. */
void adamax(int64_t count, float *const *x, const float *const *d, float *const *m, float *const *u, const int64_t *n,
            const float *step_size, float w, float beta2, float epsilon) {
  for (int64_t i = 0; i < count; i++)
    adamax_one(x[i], d[i], m[i], u[i], n[i], step_size[i], w, beta2, epsilon);
}

/* Stacks of four frames, bytes [batch, 4, pixels] with `stride` bytes from one stack to the next, as x / 255 in
 * [batch, pixels, 4]. */
void unit_interval(const uint8_t *restrict stacks, float *restrict out, int64_t batch, int64_t pixels, int64_t stride) {
#pragma omp parallel for schedule(static) if (4 * batch * pixels > WORTH_A_SECOND_THREAD)
  for (int64_t b = 0; b < batch; b++) {
    const uint8_t *frames = stacks + b * stride;
    float *row = out + b * pixels * 4;
    for (int64_t i = 0; i < pixels; i++)
      for (int64_t frame = 0; frame < 4; frame++) row[i * 4 + frame] = frames[frame * pixels + i] / 255.0f;
  }
}
