#include "ops/gemm_run.h"

#include <algorithm>
#include <cmath>

#include "kernels/gemm/plain.h"
#include "kernels/transpose/transpose.h"

namespace tiercel {
namespace {

// Rounds of 64 columns are whole panels on every ISA, so a plan does not depend on it.
constexpr int64_t kColumnRound = 64, kRowRound = 6;
constexpr int64_t kRowColumns = 128;       // of a task of one row, which reads two panels of B as two streams: one would give half the bandwidth
constexpr int64_t kPackFloats = 64 << 10;  // of a weight that is packed on several threads, at a time

// With few columns most of a register tile would be padding. Chosen by k and n alone: a row may not depend on its batch.
bool few_columns(const GemmProblem& p) { return p.n <= 4 && p.k >= 32 && p.a_k == 1; }

}  // namespace

double GemmProblem::flops() const {
  return 2.0 * static_cast<double>(batches.size()) * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

void GemmRun::pack(const float* b, int64_t first, int64_t last, float* packed) const {
  if (!dot_ && p_.b_k == 1 && p_.b_col != 1) {  // rows of k: each panel is a transposed plane
    for (int64_t j = first; j < last; j += gemm().panel) {
      const int64_t columns = std::min<int64_t>(gemm().panel, p_.n - j), width = round_up(columns, gemm().lanes);
      float* const to = packed + p_.k * j;
      transpose_kernels().plane[2](b + j * p_.b_col, p_.b_col, to, width, columns, p_.k);
      for (int64_t i = 0; columns < width && i < p_.k; ++i) std::fill(to + i * width + columns, to + (i + 1) * width, 0.0f);
    }
    return;
  }
  if (!dot_) return gemm().pack_b(b, p_.b_k, p_.b_col, p_.k, p_.n, first, last, packed);
  for (int64_t j = first; j < last; ++j)
    for (int64_t i = 0; i < p_.k; ++i) packed[j * p_.k + i] = b[i * p_.b_k + j * p_.b_col];
}

GemmRun::GemmRun(GemmProblem problem) : p_(std::move(problem)), dot_(few_columns(p_)) {
  if (dot_) {
    source_ = p_.b_k == 1 ? Source::kInPlace : Source::kPackOnce;
  } else if (p_.b_col == 1 || p_.n == 1) {
    // Packing pays when many rows pass over a B that is big, or whose rows fall on the same cache sets.
    const bool big = p_.m >= 192 && p_.k * p_.n >= 65536, clash = p_.m >= 48 && p_.k >= 64 && p_.b_k >= 512 && p_.b_k % 256 == 0;
    source_ = big || clash ? Source::kPackOnce : Source::kInPlace;
  } else {
    source_ = Source::kPackOnce;
  }
  if (source_ == Source::kPackOnce && !dot_ && static_cast<int64_t>(p_.batches.size()) * ceil_div(p_.n, kColumnRound) >= 12)
    source_ = Source::kPackEach;
  plan();
}

GemmRun::GemmRun(const PrepareContext& ctx, int input, GemmProblem problem)
    : p_(std::move(problem)), source_(Source::kPacked), dot_(few_columns(p_)) {
  // Each matrix of B once, in the order of its offsets.
  std::vector<int64_t> offsets;
  for (const GemmBatch& b : p_.batches) offsets.push_back(b.b);
  std::sort(offsets.begin(), offsets.end());
  offsets.erase(std::unique(offsets.begin(), offsets.end()), offsets.end());
  const int64_t floats = packed_floats();
  for (const GemmBatch& b : p_.batches)
    packed_at_.push_back((std::lower_bound(offsets.begin(), offsets.end(), b.b) - offsets.begin()) * floats);
  std::string key = dot_ ? "gemm_dot" : "gemm";
  for (const int64_t v : {int64_t{gemm().panel}, p_.k, p_.n, p_.b_k, p_.b_col}) (key += ':') += std::to_string(v);
  packed_ = ctx.pack(input, key, [&](const Tensor& t) {
    Buffer memory = allocate_lasting(static_cast<size_t>(std::max<int64_t>(floats * static_cast<int64_t>(offsets.size()), 1)) * 4);
    float* const to = static_cast<float*>(memory.get());
    const float* const from = t.as<float>();
    const int64_t rounds = ceil_div(p_.n, kColumnRound), grain = std::max<int64_t>(1, kPackFloats / std::max<int64_t>(p_.k * kColumnRound, 1));
    ctx.split(rounds * static_cast<int64_t>(offsets.size()), grain, [&](int64_t i, int64_t end) {
      while (i < end) {  // neighbouring columns of one matrix
        const int64_t matrix = i / rounds, first = i % rounds, last = std::min(rounds, first + end - i);
        pack(from + offsets[static_cast<size_t>(matrix)], first * kColumnRound, std::min(p_.n, last * kColumnRound), to + matrix * floats);
        i += last - first;
      }
    });
    return memory;
  });
  plan();
}

// Blocks of C that the tasks compute: of the splits at hand the one with the least estimated time, at the speed and bandwidth of
// an ordinary core, averaged over teams of two and four so that the split does not depend on the team.
void GemmRun::plan() {
  const int64_t m = std::max<int64_t>(p_.m, 1), n = std::max<int64_t>(p_.n, 1), k = std::max<int64_t>(p_.k, 1);
  const int64_t batches = std::max<int64_t>(static_cast<int64_t>(p_.batches.size()), 1);
  if (dot_) {  // bandwidth: 256 KiB of A a task
    block_m_ = std::min(m, round_up(std::max<int64_t>(65536 / k, 1), 8));
    block_n_ = n;
    tasks_m_ = ceil_div(m, block_m_);
    return;
  }
  copy_a_ = p_.a_k != 1 && p_.a_row == 1 && m * k >= 8192 && n >= 96;
  const double a_us = 4e-6 * static_cast<double>(m) * static_cast<double>(k) / 0.06, b_us = 4e-6 * static_cast<double>(k) * static_cast<double>(n) / 0.06;
  const double work = static_cast<double>(batches) * std::max(2e-6 * static_cast<double>(m) * static_cast<double>(round_up(n, 16)) * static_cast<double>(k) / 0.2, 3 * b_us);
  const auto rounds = [](double tasks, double threads) { return std::ceil(tasks / threads) * threads / tasks; };
  double best = INFINITY;
  for (int64_t w : {round_up(n, kColumnRound), int64_t{512}, int64_t{256}, int64_t{128}, int64_t{64}})
    for (int64_t h : {round_up(m, kRowRound), int64_t{576}, int64_t{288}, int64_t{144}, int64_t{72}, int64_t{36}}) {
      if (w > round_up(n, kColumnRound) || h > round_up(m, kRowRound)) continue;
      if (m == 1 && w < std::min(kRowColumns, round_up(n, kColumnRound))) continue;
      if (source_ == Source::kPackEach && h < m) continue;
      // Blocks as even as can be, and of many strips as many for each thread.
      const int64_t strips = ceil_div(m, h), across = ceil_div(n, round_up(ceil_div(n, ceil_div(n, w)), kColumnRound));
      const int64_t rows = round_up(ceil_div(m, strips > 4 && across % 4 ? round_up(strips, 4) : strips), kRowRound), down = ceil_div(m, rows);
      const double tasks = static_cast<double>(batches * across * down);
      const double time = work * ((rounds(tasks, 2) + rounds(tasks, 4)) / 2 + 0.25 / tasks) + 0.3 * tasks +
                          static_cast<double>(batches) * (static_cast<double>(down) * b_us + static_cast<double>(across) * a_us);
      if (time >= best) continue;
      best = time;
      block_m_ = std::min(rows, m);
      block_n_ = std::min(round_up(ceil_div(n, across), kColumnRound), n);
    }
  tasks_m_ = ceil_div(m, block_m_);
  tasks_n_ = ceil_div(n, block_n_);
  by_rows_ = m > n;
  // Small products of a batch go several at a time.
  const double each = work / static_cast<double>(batches * tasks_m_ * tasks_n_);
  grain_ = std::clamp<int64_t>(static_cast<int64_t>(5 / std::max(each, 0.01)), 1, 256);
}

int64_t GemmRun::workspace(int threads) const {
  int64_t floats = copy_a_ ? static_cast<int64_t>(p_.batches.size()) * round_up(p_.m * p_.k, 16) : 0;
  if (source_ == Source::kPackOnce) floats += packed_floats();
  if (source_ == Source::kPackEach) floats += threads * task_floats();
  return 4 * floats;
}

double GemmRun::bytes() const {
  return 4.0 * static_cast<double>(p_.batches.size()) *
         (static_cast<double>(p_.m) * static_cast<double>(p_.k) + static_cast<double>(p_.k) * static_cast<double>(p_.n) +
          static_cast<double>(p_.m) * static_cast<double>(p_.n));
}

// Of the block of C that begins at (i, j).
GemmEpilogue GemmRun::epilogue(size_t batch, int64_t i, int64_t j, const float* add0, const float* add1) const {
  GemmEpilogue e;
  e.alpha = alpha;
  e.activation = activation;
  for (int s = 0; s < 2; ++s) {
    const float* data = s ? add1 : add0;
    if (!data) continue;
    const AddendForm& f = add[s];
    e.add[s] = {data + (f.batches.empty() ? 0 : f.batches[batch]) + i * f.row + j * f.col, f.row, f.col, f.scale};
  }
  return e;
}

void GemmRun::strip(int64_t first, int64_t rows, const float* a, int64_t a_row, float* c, int64_t c_row, const float* add0, const float* add1,
                    const float* next) const {
  const float* const b = packed() + packed_at_[0];
  const GemmEpilogue e = epilogue(0, first, 0, add0, add1);
  GemmArgs x;
  x.m = rows;
  x.n = p_.n;
  x.k = p_.k;
  x.a = &a;
  x.a_row = a_row;
  x.b = &b;
  x.b_row = dot_ ? p_.k : 0;
  x.c = c;
  x.c_row = c_row;
  x.next_b = next;
  if (alpha != 1 || add0 || add1 || activation) x.epilogue = &e;
  (dot_ ? gemm().dot : gemm().gemm)(x);
}

void GemmRun::run(Worker& worker, const float* a, const float* b, float* c, const float* add0, const float* add1, void* workspace) const {
  if (p_.m == 0 || p_.n == 0 || p_.batches.empty()) return;
  const GemmKernels& g = gemm();
  float* scratch = static_cast<float*>(workspace);
  const int64_t batches = static_cast<int64_t>(p_.batches.size()), a_floats = round_up(p_.m * p_.k, 16);
  const float* const packed = static_cast<const float*>(packed_.get());
  float* const b_scratch = scratch + (copy_a_ ? batches * a_floats : 0);
  if (copy_a_) {
    constexpr int64_t kRows = 64;
    const int64_t strips = ceil_div(p_.m, kRows);
    worker.parallel_for(batches * strips, 1, [&](int64_t first, int64_t last) {
      for (int64_t t = first; t < last; ++t) {
        const int64_t batch = t / strips, i = t % strips * kRows;
        transpose_kernels().plane[2](a + p_.batches[static_cast<size_t>(batch)].a + i, p_.a_k, scratch + batch * a_floats + i * p_.k, p_.k, p_.k,
                                     std::min(kRows, p_.m - i));
      }
    });
    worker.barrier();
  }
  const bool finish = alpha != 1 || add0 || add1 || activation;
  const int64_t tasks = tasks_m_ * tasks_n_;
  // One block of C. `panels`: the packed columns that it takes; null: B in place. `next`: those that this core is likely to take next.
  const auto product = [&](int64_t batch, int64_t task, const float* panels, const float* next) {
    const GemmBatch& at = p_.batches[static_cast<size_t>(batch)];
    const int64_t i = row_of(task), j = column_of(task);
    const float* ap = copy_a_ ? scratch + batch * a_floats + i * p_.k : a + at.a + i * p_.a_row;
    const float* bp = panels ? panels : b + at.b + j * p_.b_col;
    GemmEpilogue e;
    GemmArgs x;
    x.m = std::min(block_m_, p_.m - i);
    x.n = std::min(block_n_, p_.n - j);
    x.k = p_.k;
    x.a = &ap;
    x.a_row = copy_a_ ? p_.k : p_.a_row;
    x.a_k = copy_a_ ? 1 : p_.a_k;
    x.b = &bp;
    x.b_row = panels ? 0 : std::max<int64_t>(p_.b_k, 1);
    x.c = c + at.c + i * p_.c_row + j;
    x.c_row = p_.c_row;
    x.next_b = next;
    if (finish) {
      e = epilogue(static_cast<size_t>(batch), i, j, add0, add1);
      x.epilogue = &e;
    }
    if (dot_) {
      x.b_row = panels ? p_.k : p_.b_col;
      return g.dot(x);
    }
    g.gemm(x);
  };
  // The same out of all of B packed.
  const auto packed_product = [&](int64_t batch, int64_t task, const float* panels) {
    const int64_t j = column_of(task), next = column_of(task + 1);
    product(batch, task, panels + p_.k * j, next > j && next < p_.n ? panels + p_.k * next : nullptr);
  };
  if (source_ == Source::kPackOnce) {
    for (int64_t batch = 0; batch < batches; ++batch) {
      const int64_t at = p_.batches[static_cast<size_t>(batch)].b;
      if (batch == 0 || at != p_.batches[static_cast<size_t>(batch - 1)].b) {
        if (batch) worker.barrier();
        worker.parallel_for(ceil_div(p_.n, g.panel), std::max<int64_t>(1, 16384 / std::max<int64_t>(p_.k * g.panel, 1)), [&](int64_t first, int64_t last) {
          pack(b + at, first * g.panel, std::min(last * g.panel, p_.n), b_scratch);
        });
        worker.barrier();
      }
      worker.parallel_for(tasks, grain_, [&](int64_t first, int64_t last) {
        for (int64_t t = first; t < last; ++t) packed_product(batch, t, b_scratch);
      });
    }
  } else if (source_ == Source::kPackEach) {  // all rows of a few columns, which stay in this core's cache
    float* mine = b_scratch + worker.index() * task_floats();
    worker.parallel_for(batches * tasks_n_, grain_, [&](int64_t first, int64_t last) {
      for (int64_t t = first; t < last; ++t) {
        const int64_t batch = t / tasks_n_, j = t % tasks_n_ * block_n_, n = std::min(block_n_, p_.n - j);
        const int64_t at = p_.batches[static_cast<size_t>(batch)].b;
        if (t == first || tasks_n_ > 1 || at != p_.batches[static_cast<size_t>(batch - 1)].b)
          g.pack_b(b + at + j * p_.b_col, p_.b_k, p_.b_col, p_.k, n, 0, n, mine);
        product(batch, t % tasks_n_, mine, nullptr);  // tasks_m_ is 1
      }
    });
  } else {
    if (worker.count() == 1 && p_.m == 1 && batches == 1 && source_ == Source::kPacked && p_.a_k == 1)  // all columns at once
      return strip(0, 1, a + p_.batches[0].a, p_.a_row, c + p_.batches[0].c, p_.c_row, add0, add1, nullptr);
    worker.parallel_for(batches * tasks, grain_, [&](int64_t first, int64_t last) {
      for (int64_t t = first; t < last; ++t) {
        const int64_t batch = t / tasks;
        if (source_ == Source::kPacked) packed_product(batch, t % tasks, packed + packed_at_[static_cast<size_t>(batch)]);
        else product(batch, t % tasks, nullptr, nullptr);
      }
    });
  }
}

void plain_gemm_run(Worker& worker, DType dtype, const GemmProblem& p, const void* a, const void* b, void* c) {
  const PlainGemmKernels& g = plain_gemm();
  const bool wide = dtype != DType::kInt32 && dtype != DType::kUInt32;
  const int64_t size = wide ? 8 : 4;
  const auto kernel = dtype == DType::kDouble ? g.f64 : wide ? g.u64 : g.u32;
  const auto at = [&](const void* base, int64_t elements) { return static_cast<const char*>(base) + elements * size; };
  constexpr int64_t kBlockM = 64, kBlockN = 256;
  const int64_t tm = ceil_div(p.m, kBlockM), tn = ceil_div(p.n, kBlockN);
  worker.parallel_for(static_cast<int64_t>(p.batches.size()) * tm * tn, 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      const GemmBatch& batch = p.batches[static_cast<size_t>(t / (tm * tn))];
      const int64_t i = t % (tm * tn) / tn * kBlockM, j = t % tn * kBlockN;
      kernel({std::min(kBlockM, p.m - i), std::min(kBlockN, p.n - j), p.k, at(a, batch.a + i * p.a_row), p.a_row, p.a_k,
              at(b, batch.b + j * p.b_col), p.b_k, p.b_col, const_cast<char*>(at(c, batch.c + i * p.c_row + j)), p.c_row});
    }
  });
}

}  // namespace tiercel
