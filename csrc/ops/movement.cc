#include "ops/movement.h"

#include <algorithm>
#include <bit>

#include "base/available_memory.h"
#include "kernels/copy/copy.h"
#include "kernels/transpose/transpose.h"

namespace tiercel {
namespace {

int log2_of(int64_t size) { return std::countr_zero(static_cast<uint64_t>(size)); }

}  // namespace

void fill_elements(Element e, void* to, const void* value, int64_t n) {
  if (e.string) std::fill_n(static_cast<std::string*>(to), n, *static_cast<const std::string*>(value));
  else copy_kernels().fill[log2_of(e.size)](value, to, n);
}

Strides strides_of(const Shape& shape) {
  Strides s{};
  int64_t n = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    s[i] = n;
    n *= shape[i];
  }
  return s;
}

// ---- StridedCopy

StridedCopy::StridedCopy(Element e, std::span<const Axis> given) : element_(e) {
  std::vector<Axis> axes;
  for (const Axis& x : given) {
    if (x.extent <= 0) return;  // nothing to do: no tasks
    if (x.extent > 1) axes.push_back(x);
  }
  std::stable_sort(axes.begin(), axes.end(), [](const Axis& x, const Axis& y) { return std::abs(x.out) > std::abs(y.out); });
  for (size_t i = axes.size(); i-- > 1;) {  // merge what is contiguous on both sides
    Axis &x = axes[i - 1], &y = axes[i];
    if (x.in != y.in * y.extent || x.out != y.out * y.extent) continue;
    x = {x.extent * y.extent, y.in, y.out};
    axes.erase(axes.begin() + static_cast<std::ptrdiff_t>(i));
  }
  // A short contiguous run is one larger element.
  if (!e.string && !axes.empty()) {
    const Axis run = axes.back();
    const int64_t bytes = run.extent * e.size;
    const bool divides = std::all_of(axes.begin(), axes.end() - 1, [&](const Axis& x) { return x.in % run.extent == 0 && x.out % run.extent == 0; });
    if (run.in == 1 && run.out == 1 && bytes <= 16 && std::has_single_bit(static_cast<uint64_t>(bytes)) && divides) {
      axes.pop_back();
      for (Axis& x : axes) { x.in /= run.extent; x.out /= run.extent; }
      element_.size = bytes;
    }
  }
  if (!axes.empty()) { b_ = axes.back(); axes.pop_back(); }
  else b_ = {1, 1, 1};
  int64_t limit = kMoveBytes / element_.size;  // elements of a block
  auto take = [&](size_t i) { a_ = axes[i]; axes.erase(axes.begin() + static_cast<std::ptrdiff_t>(i)); };
  const auto in_unit = std::find_if(axes.begin(), axes.end(), [](const Axis& x) { return x.in == 1; });
  if (e.string) {
    mode_ = Mode::kElements;
    if (!axes.empty()) take(axes.size() - 1);
  } else if (b_.out == 1 && b_.in != 1 && in_unit != axes.end()) {
    mode_ = Mode::kPlane;
    take(static_cast<size_t>(in_unit - axes.begin()));
    block_b_ = std::min<int64_t>(b_.extent, 64);
  } else {
    mode_ = b_.in == 1 && b_.out == 1 ? Mode::kRows : Mode::kElements;
    if (!axes.empty()) {
      size_t i = axes.size() - 1;
      if (axes[i].extent < 8)
        i = static_cast<size_t>(std::max_element(axes.begin(), axes.end(), [](auto& x, auto& y) { return x.extent < y.extent; }) - axes.begin());
      take(i);
    }
  }
  if (mode_ != Mode::kPlane) block_b_ = std::min(b_.extent, limit);
  block_a_ = std::min(a_.extent, std::max<int64_t>(limit / block_b_, 1));
  outer_ = std::move(axes);
  tasks_ = ceil_div(a_.extent, block_a_) * ceil_div(b_.extent, block_b_);
  for (const Axis& x : outer_) tasks_ *= x.extent;
  grain_ = move_grain(block_a_ * block_b_ * element_.size);
}

void StridedCopy::block(const char* in, char* out, int64_t rows, int64_t cols) const {
  const int64_t size = element_.size;
  if (element_.string) {
    const auto* from = reinterpret_cast<const std::string*>(in);
    auto* to = reinterpret_cast<std::string*>(out);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) to[r * a_.out + c * b_.out] = from[r * a_.in + c * b_.in];
    return;
  }
  switch (mode_) {
    case Mode::kRows: return copy_kernels().rows(in, a_.in * size, out, a_.out * size, rows, cols * size);
    case Mode::kPlane: return transpose_kernels().plane[log2_of(size)](in, b_.in, out, a_.out, cols, rows);
    case Mode::kElements: return copy_kernels().strided[log2_of(size)](in, a_.in, b_.in, out, a_.out, b_.out, rows, cols);
  }
}

void StridedCopy::run(const void* in, void* out, int64_t first, int64_t last) const {
  const int64_t blocks_a = ceil_div(a_.extent, block_a_), blocks_b = ceil_div(b_.extent, block_b_);
  int64_t t = first, from = 0, to = 0;
  int64_t index[2 * kMaxRank];
  const int64_t b0 = t % blocks_b;
  t /= blocks_b;
  const int64_t a0 = t % blocks_a;
  t /= blocks_a;
  const int n = static_cast<int>(outer_.size());
  for (int i = n - 1; i >= 0; --i) {
    index[i] = t % outer_[i].extent;
    t /= outer_[i].extent;
    from += index[i] * outer_[i].in;
    to += index[i] * outer_[i].out;
  }
  int64_t a = a0, b = b0;
  for (t = first; t < last; ++t) {
    const int64_t i = a * block_a_, j = b * block_b_;
    block(offset(in, from + i * a_.in + j * b_.in, element_), offset(out, to + i * a_.out + j * b_.out, element_),
          std::min(block_a_, a_.extent - i), std::min(block_b_, b_.extent - j));
    if (++b < blocks_b) continue;
    b = 0;
    if (++a < blocks_a) continue;
    a = 0;
    for (int k = n - 1; k >= 0; --k) {
      from += outer_[k].in;
      to += outer_[k].out;
      if (++index[k] < outer_[k].extent) break;
      from -= outer_[k].in * outer_[k].extent;
      to -= outer_[k].out * outer_[k].extent;
      index[k] = 0;
    }
  }
}

// ---- CopyList

void CopyList::add(StridedCopy copy, int in, int64_t in_offset, int out, int64_t out_offset, Element e) {
  if (!copy.tasks()) return;
  const int64_t n = copy.tasks(), g = copy.grain();
  grain_ = parts_.empty() ? g : std::min(grain_, g);
  parts_.push_back({std::move(copy), in, out, in_offset * e.size, out_offset * e.size, tasks_});
  tasks_ += n;
}

void CopyList::run(const Args& args, Worker& worker) const {
  worker.parallel_for(tasks_, grain_, [&](int64_t begin, int64_t end) {
    auto p = std::upper_bound(parts_.begin(), parts_.end(), begin, [](int64_t t, const Part& x) { return t < x.first_task; }) - 1;
    for (; p != parts_.end() && p->first_task < end; ++p)
      p->copy.run(args.in<char>(p->in) + p->in_bytes, args.out<char>(p->out) + p->out_bytes, std::max<int64_t>(begin - p->first_task, 0),
                  std::min(end - p->first_task, p->copy.tasks()));
  });
}

// ---- RowCopies

void RowCopies::add_channels(int in, const Shape& in_shape, int64_t from, int out, const Shape& out_shape, int64_t to, int64_t n) {
  constexpr int64_t kPixel = kChannelBlock * 4;  // bytes
  const auto place = [&](const Shape& s, int64_t channel) {
    return Place{channel / kChannelBlock * rows_ * kPixel + channel % kChannelBlock * 4, kPixel, ceil_div(s[1], kChannelBlock) * rows_ * kPixel};
  };
  for (int64_t some; n > 0; from += some, to += some, n -= some) {
    some = std::min(n, kChannelBlock - std::max(from % kChannelBlock, to % kChannelBlock));
    add(in, place(in_shape, from), out, place(out_shape, to), some * 4);
  }
  const int64_t lane = out_shape[1] % kChannelBlock;
  if (to == out_shape[1] && lane) add(kZeros, {0, 0, 0}, out, place(out_shape, to), kPixel - lane * 4);
}

void RowCopies::run(const Args& args, Worker& worker) const {
  static const float zeros[kChannelBlock] = {};
  if (rows_ == 0 || parts_.empty()) return;  // of however many images
  int64_t bytes = 1;  // of an image, about: few of a row still cost a cache line
  for (const Part& p : parts_) bytes += std::max<int64_t>(p.bytes, 64) * rows_;
  const int64_t chunks = std::clamp<int64_t>(bytes / kTaskBytes, 1, std::max<int64_t>(rows_ / kFewRows, 1));
  worker.parallel_for(images_ * chunks, std::max<int64_t>(kTaskBytes / (bytes / chunks + 1), 1), [&](int64_t i, int64_t end) {
    for (; i < end; ++i) {
      const int64_t image = i / chunks, first = rows_ * (i % chunks) / chunks, rows = rows_ * (i % chunks + 1) / chunks - first;
      for (const Part& p : parts_) {
        const char* const from =
            p.in == kZeros ? reinterpret_cast<const char*>(zeros) : args.in<char>(p.in) + p.from.at + image * p.from.image + first * p.from.row;
        char* const to = args.out<char>(p.out) + p.to.at + image * p.to.image + first * p.to.row;
        if (p.bytes == p.from.row && p.bytes == p.to.row) std::memcpy(to, from, static_cast<size_t>(rows * p.bytes));
        else copy_kernels().rows(from, p.from.row, to, p.to.row, rows, p.bytes);
      }
    }
  });
}

// ---- Elements below a byte

namespace {

// Unpacks to one element a byte, runs the kernel on those, and packs its outputs.
class SubByteKernel final : public Kernel {
 public:
  struct Operand { int slot; int bits; int64_t count, at; };
  SubByteKernel(std::unique_ptr<Kernel> inner, int num_inputs, int num_outputs, std::vector<Operand> in,
                std::vector<Operand> out, int64_t inner_workspace_at)
      : inner_(std::move(inner)), num_inputs_(num_inputs), num_outputs_(num_outputs), in_(std::move(in)),
        out_(std::move(out)), inner_workspace_at_(inner_workspace_at) {}

  void run(const Args& args, Worker& worker) const override {
    std::vector<void*> table(static_cast<size_t>(num_inputs_ + num_outputs_));
    std::vector<int32_t> slots(table.size());
    for (int i = 0; i < num_inputs_; ++i) table[i] = const_cast<void*>(args.in(i));
    for (int i = 0; i < num_outputs_; ++i) table[num_inputs_ + i] = args.out(i);
    auto* scratch = args.workspace<uint8_t>();
    for (const Operand& x : in_) {
      const auto* packed = static_cast<const uint8_t*>(table[x.slot]);
      uint8_t* bytes = scratch + x.at;
      const int per = 8 / x.bits, mask = (1 << x.bits) - 1;
      worker.parallel_for(x.count, kMoveBytes, [&](int64_t b, int64_t e) {
        for (int64_t i = b; i < e; ++i) bytes[i] = static_cast<uint8_t>(packed[i / per] >> (i % per * x.bits) & mask);
      });
      table[x.slot] = bytes;
    }
    std::vector<void*> packed(out_.size());
    for (size_t k = 0; k < out_.size(); ++k) {
      packed[k] = table[out_[k].slot];
      table[out_[k].slot] = scratch + out_[k].at;
    }
    for (size_t i = 0; i < table.size(); ++i) slots[i] = table[i] ? static_cast<int32_t>(i) : -1;
    worker.barrier();
    inner_->run(Args(table.data(), slots.data(), num_inputs_, scratch + inner_workspace_at_), worker);
    worker.barrier();
    for (size_t k = 0; k < out_.size(); ++k) {
      const Operand& x = out_[k];
      const uint8_t* bytes = scratch + x.at;
      auto* to = static_cast<uint8_t*>(packed[k]);
      const int per = 8 / x.bits, mask = (1 << x.bits) - 1;
      worker.parallel_for(ceil_div(x.count, per), kMoveBytes, [&](int64_t b, int64_t e) {
        for (int64_t i = b; i < e; ++i) {
          int byte = 0;
          for (int j = 0; j < per && i * per + j < x.count; ++j) byte |= (bytes[i * per + j] & mask) << (j * x.bits);
          to[i] = static_cast<uint8_t>(byte);
        }
      });
    }
  }

 private:
  std::unique_ptr<Kernel> inner_;
  int num_inputs_, num_outputs_;
  std::vector<Operand> in_, out_;
  int64_t inner_workspace_at_;
};

}  // namespace

void wrap_sub_byte(PrepareContext& ctx) {
  if (!ctx.kernel_) return;
  std::vector<SubByteKernel::Operand> in, out;
  int64_t at = 0;
  auto add = [&](auto& list, int slot, DType t, const Shape& shape) {
    const int bits = bits_of(t);
    if (bits == 0 || bits >= 8) return;
    list.push_back({slot, bits, shape.count(), at});
    at += round_up(shape.count(), static_cast<int64_t>(kAlignment));
  };
  const int n = ctx.num_inputs(), m = ctx.num_outputs();
  for (int i = 0; i < n; ++i) if (ctx.has_input(i)) add(in, i, ctx.dtype(i), ctx.shape(i));
  for (int i = 0; i < m; ++i) if (ctx.has_output(i)) add(out, n + i, ctx.out_dtype(i), ctx.out_shape(i));
  if (in.empty() && out.empty()) return;
  ctx.inplace_.clear();
  const int64_t inner = ctx.workspace_;
  ctx.kernel(std::make_unique<SubByteKernel>(std::move(ctx.kernel_), n, m, std::move(in), std::move(out), at));
  ctx.workspace(at + inner);
}

// ---- Inference

void check_fits(const InferContext& ctx, DType dtype, const Shape& shape) {
  double bytes = std::max(bits_of(dtype), 1) / 8.0;
  if (dtype == DType::kString) bytes = sizeof(std::string);
  for (Dim d : shape) bytes *= static_cast<double>(std::max<Dim>(d, 0));
  if (bytes >= 0x1p30 && bytes > static_cast<double>(available_memory()))
    ctx.fail("the result of shape ", shape.str(), " would take ", bytes / (1 << 30), " GiB, more memory than is available");
}

std::optional<std::vector<Dim>> small_ints(const InferContext& ctx, int i) {
  if (!ctx.has_input(i)) return std::nullopt;
  const Tensor* t = ctx.constant(i);
  if (t && (t->shape().rank() > 1 || t->count() > kMaxKnownInts)) return std::nullopt;
  return ctx.ints(i);
}

std::optional<std::vector<int64_t>> known_ints(const InferContext& ctx, int i) {
  auto v = ctx.ints(i);
  if (v && std::any_of(v->begin(), v->end(), is_symbol)) return std::nullopt;
  return v;
}

std::optional<std::vector<int64_t>> known_ints(const PrepareContext& ctx, int i) {
  auto v = ctx.ints(i);
  if (v && std::any_of(v->begin(), v->end(), is_symbol)) return std::nullopt;
  return v;
}

std::optional<int64_t> length_of(const InferContext& ctx, int i) {
  if (!ctx.has_input(i)) return std::nullopt;
  if (ctx.ranked(i) && ctx.shape(i).rank() == 1 && ctx.shape(i)[0] >= 0) return ctx.shape(i)[0];
  if (auto v = small_ints(ctx, i)) return static_cast<int64_t>(v->size());
  return std::nullopt;
}

Shape fresh_shape(const InferContext& ctx, int rank) {
  Shape s;
  for (int i = 0; i < rank; ++i) s.push_back(ctx.fresh());
  return s;
}

void move_cost(PrepareContext& ctx) {
  double bytes = 0;
  for (int i = 0; i < ctx.num_outputs(); ++i)
    if (ctx.has_output(i)) bytes += 2.0 * static_cast<double>(bytes_of(ctx.out_dtype(i), ctx.out_shape(i).count()));
  ctx.cost(0, bytes);
}

}  // namespace tiercel
