// DepthToSpace and SpaceToDepth: blocks of pixels to and from channels.
#include "ops/grad.h"
#include "ops/movement.h"

namespace tiercel {
namespace {

int64_t block_of(const InferContext& ctx) {
  const int64_t b = ctx.node.attr_int("blocksize", 0);
  ctx.check(b >= 1 && b <= INT32_MAX, "attribute 'blocksize' is ", b, ": 1 at least is needed");
  if (ctx.ranked(0)) ctx.check(ctx.shape(0).rank() == 4, "the input should be [N, C, H, W]");
  return b;
}

Dim multiply(const InferContext& ctx, Dim d, int64_t by) {
  if (is_symbol(d)) return by == 1 ? d : ctx.fresh();
  int64_t r;
  ctx.check(!__builtin_mul_overflow(d, by, &r), "the result is too large");
  return r;
}

Dim divide(const InferContext& ctx, Dim d, int64_t by, const char* what) {
  if (is_symbol(d)) return by == 1 ? d : ctx.fresh();
  ctx.check(d % by == 0, what, " ", d, " is not a multiple of ", by);
  return d / by;
}

// ---- DepthToSpace. DCR: [N, b, b, C', H, W], CRD: [N, C', b, b, H, W] -> [N, C', H, b, W, b]

void infer_depth_to_space(InferContext& ctx) {
  const int64_t b = block_of(ctx);
  const std::string mode = ctx.node.attr_string("mode", "DCR");
  ctx.check(mode == "DCR" || mode == "CRD", "mode '", mode, "' is not known");
  if (!ctx.ranked(0)) return ctx.set_output(0, ctx.dtype(0), fresh_shape(ctx, 4));
  const Shape& s = ctx.shape(0);
  ctx.set_output(0, ctx.dtype(0), {s[0], divide(ctx, s[1], b * b, "the channel count"), multiply(ctx, s[2], b), multiply(ctx, s[3], b)});
}

void prepare_depth_to_space(PrepareContext& ctx) {
  const Shape &s = ctx.shape(0), &out = ctx.out_shape(0);
  const int64_t b = ctx.node.attr_int("blocksize", 1), c = out[1], h = s[2], w = s[3], plane = h * w;
  const bool dcr = ctx.node.attr_string("mode", "DCR") == "DCR";
  const int64_t c_stride = dcr ? plane : b * b * plane, i_stride = dcr ? b * c * plane : b * plane, j_stride = dcr ? c * plane : plane;
  const int64_t out_plane = plane * b * b;
  StridedCopy copy(Element(ctx.dtype(0)), {{s[0], s[1] * plane, c * out_plane}, {c, c_stride, out_plane}, {h, w, b * b * w},
                                           {b, i_stride, b * w}, {w, 1, b}, {b, j_stride, 1}});
  move_cost(ctx);
  ctx.run([copy = std::move(copy)](const Args& a, Worker& worker) { copy.run(a.in(0), a.out(0), worker); });
}

// ---- SpaceToDepth: [N, C, H', b, W', b] -> [N, b, b, C, H', W'], or with mode CRD (opset 28) [N, C, b, b, H', W']

void infer_space_to_depth(InferContext& ctx) {
  const int64_t b = block_of(ctx);
  const std::string mode = ctx.node.attr_string("mode", "DCR");
  ctx.check(mode == "DCR" || mode == "CRD", "mode '", mode, "' is not known");
  if (!ctx.ranked(0)) return ctx.set_output(0, ctx.dtype(0), fresh_shape(ctx, 4));
  const Shape& s = ctx.shape(0);
  ctx.set_output(0, ctx.dtype(0), {s[0], multiply(ctx, multiply(ctx, s[1], b), b), divide(ctx, s[2], b, "the height"), divide(ctx, s[3], b, "the width")});
}

void prepare_space_to_depth(PrepareContext& ctx) {
  const Shape &s = ctx.shape(0), &out = ctx.out_shape(0);
  const int64_t b = ctx.node.attr_int("blocksize", 1), c = s[1], h = out[2], w = out[3], plane = h * w;
  const bool dcr = ctx.node.attr_string("mode", "DCR") == "DCR";
  const int64_t c_stride = dcr ? plane : b * b * plane, i_stride = dcr ? b * c * plane : b * plane, j_stride = dcr ? c * plane : plane;
  const int64_t in_plane = plane * b * b;
  StridedCopy copy(Element(ctx.dtype(0)), {{s[0], c * in_plane, out[1] * plane}, {c, in_plane, c_stride}, {h, b * b * w, w},
                                           {b, b * w, i_stride}, {w, b, 1}, {b, 1, j_stride}});
  move_cost(ctx);
  ctx.run([copy = std::move(copy)](const Args& a, Worker& worker) { copy.run(a.in(0), a.out(0), worker); });
}

const OpRegistration rows({
    {"DepthToSpace", "", 1, infer_depth_to_space, sub_byte<prepare_depth_to_space>},
    {"SpaceToDepth", "", 1, infer_space_to_depth, sub_byte<prepare_space_to_depth>},
});

void grad_depth_to_space(GradContext& c) {
  GraphWriter& w = c.w;
  const int64_t size = c.node.attr_int("blocksize", 1);
  Value* const packed = w.op("SpaceToDepth", {c.dy()}, {{"blocksize", size}});
  if (c.node.attr_string("mode", "DCR") == "DCR") return c.set(0, packed);
  const auto extents = [&](int64_t from, int64_t to) { return w.op("Shape", {packed}, {{"start", from}, {"end", to}}); };
  Value* const apart = w.op("Concat", {extents(0, 1), w.ints({size * size, -1}), extents(2, 4)}, {{"axis", int64_t{0}}});
  Value* const v = w.op("Transpose", {w.op("Reshape", {packed, apart})}, {{"perm", std::vector<int64_t>{0, 2, 1, 3, 4}}});
  c.set(0, w.reshape_like(v, c.x(0)));
}
const GradRegistration grads({
    {"DepthToSpace", "", grad_depth_to_space},
    {"SpaceToDepth", "", [](GradContext& c) { c.set(0, c.w.op("DepthToSpace", {c.dy()}, {{"blocksize", c.node.attr_int("blocksize", 1)}})); }},
});

}  // namespace
}  // namespace tiercel
