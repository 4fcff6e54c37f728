#include "ops/fft.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

namespace tiercel {
namespace {

constexpr int kMaxRadix = 31;

// One of Stockham's steps: `length` (a multiple of the radix R) falls to length / R, `stride` sequences lie between its elements. kR = 0: any.
template <class T, int kR, int kLanes>
void step(int given, int64_t length, int64_t stride, const T* cos, const T* sin, const T* xr, const T* xi, T* yr, T* yi) {
  const int radix = kR ? kR : given;
  const int64_t m = length / radix, n = length * stride;
  T rc[kR ? kR : kMaxRadix], rs[kR ? kR : kMaxRadix];  // the roots of unity of the radix
  for (int j = 0; j < radix; ++j) {
    rc[j] = cos[n / radix * j];
    rs[j] = sin[n / radix * j];
  }
  for (int64_t p = 0; p < m; ++p) {
    T wc[kR ? kR : kMaxRadix], ws[kR ? kR : kMaxRadix];
    for (int k = 1; k < radix; ++k) {
      wc[k] = cos[p * k * stride];
      ws[k] = sin[p * k * stride];
    }
    const int64_t in = stride * p * kLanes, in_step = stride * m * kLanes, out = stride * radix * p * kLanes, out_step = stride * kLanes;
    for (int64_t q = 0; q < stride * kLanes; q += kLanes) {
      const auto store = [&](int k, int l, T re, T im) {
        const int64_t at = out + k * out_step + q + l;
        yr[at] = k ? re * wc[k] - im * ws[k] : re;
        yi[at] = k ? re * ws[k] + im * wc[k] : im;
      };
      const T *r = xr + in + q, *i = xi + in + q;
      if constexpr (kR == 2) {
        for (int l = 0; l < kLanes; ++l) {
          const T ar = r[l], ai = i[l], br = r[in_step + l], bi = i[in_step + l];
          store(0, l, ar + br, ai + bi);
          store(1, l, ar - br, ai - bi);
        }
      } else if constexpr (kR == 4) {
        for (int l = 0; l < kLanes; ++l) {
          const T ar = r[l], ai = i[l], br = r[in_step + l], bi = i[in_step + l];
          const T cr = r[2 * in_step + l], ci = i[2 * in_step + l], dr = r[3 * in_step + l], di = i[3 * in_step + l];
          const T sr = ar + cr, si = ai + ci, tr = ar - cr, ti = ai - ci, ur = br + dr, ui = bi + di, vr = br - dr, vi = bi - di;
          store(0, l, sr + ur, si + ui);
          store(1, l, tr + vi, ti - vr);
          store(2, l, sr - ur, si - ui);
          store(3, l, tr - vi, ti + vr);
        }
      } else {
        for (int k = 0; k < radix; ++k) {
          T re[kLanes], im[kLanes];
          for (int l = 0; l < kLanes; ++l) {
            re[l] = r[l];
            im[l] = i[l];
          }
          for (int j = 1, root = k; j < radix; ++j, root = root + k < radix ? root + k : root + k - radix) {
            const T *a = r + j * in_step, *b = i + j * in_step;
            const T c = rc[root], s = rs[root];
            for (int l = 0; l < kLanes; ++l) {
              re[l] += a[l] * c - b[l] * s;
              im[l] += a[l] * s + b[l] * c;
            }
          }
          for (int l = 0; l < kLanes; ++l) store(k, l, re[l], im[l]);
        }
      }
    }
  }
}

}  // namespace

template <class T> Fft<T>::Fft(int64_t n) : n_(n) {
  int64_t left = n;
  for (int r : {4, 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31})
    for (; left > 1 && left % r == 0; left /= r) radices_.push_back(r);
  const auto size = static_cast<size_t>(n);
  cos_.resize(size);
  sin_.resize(size);
  if (left <= 1) {
    for (int64_t k = 0; k < n; ++k) {
      const double angle = 2 * std::numbers::pi * static_cast<double>(k) / static_cast<double>(n);
      cos_[static_cast<size_t>(k)] = static_cast<T>(std::cos(angle));
      sin_[static_cast<size_t>(k)] = static_cast<T>(-std::sin(angle));
    }
    return;
  }
  radices_.clear();
  for (int64_t k = 0; k < n; ++k) {
    const auto square = static_cast<double>(static_cast<unsigned __int128>(k) * static_cast<unsigned __int128>(k) % static_cast<unsigned __int128>(2 * n));
    const double angle = std::numbers::pi * square / static_cast<double>(n);
    cos_[static_cast<size_t>(k)] = static_cast<T>(std::cos(angle));
    sin_[static_cast<size_t>(k)] = static_cast<T>(-std::sin(angle));
  }
  const auto padded = std::bit_ceil(static_cast<uint64_t>(2 * n - 1));
  padded_ = std::make_unique<Fft>(static_cast<int64_t>(padded));
  filter_re_.assign(padded, 0);
  filter_im_.assign(padded, 0);
  for (size_t k = 0; k < size; ++k)
    for (const size_t at : {k, (padded - k) % padded}) {
      filter_re_[at] = cos_[k] / static_cast<T>(padded);
      filter_im_[at] = -sin_[k] / static_cast<T>(padded);
    }
  std::vector<T> scratch(static_cast<size_t>(padded_->scratch()));
  padded_->template run<1>(filter_re_.data(), filter_im_.data(), scratch.data());
}

// X_k = c_k sum_j (x_j c_j) conj(c_(k - j)) with c_k = exp(-i pi k^2 / n).
template <class T> template <int kLanes> void Fft<T>::convolve(T* re, T* im, T* scratch) const {
  const int64_t m = padded_->n_;
  T *ar = scratch, *ai = ar + m * kLanes, *rest = ai + m * kLanes;
  const auto times = [](T c, T s, const T* r, const T* i, T* to_r, T* to_i) {
    for (int l = 0; l < kLanes; ++l) {
      const T x = r[l], y = i[l];
      to_r[l] = x * c - y * s;
      to_i[l] = x * s + y * c;
    }
  };
  for (int64_t k = 0; k < n_; ++k)
    times(cos_[static_cast<size_t>(k)], sin_[static_cast<size_t>(k)], re + k * kLanes, im + k * kLanes, ar + k * kLanes, ai + k * kLanes);
  std::fill(ar + n_ * kLanes, ar + m * kLanes, T{0});
  std::fill(ai + n_ * kLanes, ai + m * kLanes, T{0});
  padded_->template run<kLanes>(ar, ai, rest);
  for (int64_t k = 0; k < m; ++k)
    times(filter_re_[static_cast<size_t>(k)], filter_im_[static_cast<size_t>(k)], ar + k * kLanes, ai + k * kLanes, ar + k * kLanes, ai + k * kLanes);
  padded_->template run<kLanes>(ai, ar, rest);
  for (int64_t k = 0; k < n_; ++k)
    times(cos_[static_cast<size_t>(k)], sin_[static_cast<size_t>(k)], ar + k * kLanes, ai + k * kLanes, re + k * kLanes, im + k * kLanes);
}

template <class T> template <int kLanes> void Fft<T>::run(T* re, T* im, T* scratch) const {
  if (padded_) return convolve<kLanes>(re, im, scratch);
  T *xr = re, *xi = im, *yr = scratch, *yi = scratch + n_ * kLanes;
  int64_t length = n_, stride = 1;
  for (const int r : radices_) {
    const auto f = r == 2 ? step<T, 2, kLanes> : r == 3 ? step<T, 3, kLanes> : r == 4 ? step<T, 4, kLanes> : r == 5 ? step<T, 5, kLanes> : step<T, 0, kLanes>;
    f(r, length, stride, cos_.data(), sin_.data(), xr, xi, yr, yi);
    std::swap(xr, yr);
    std::swap(xi, yi);
    length /= r;
    stride *= r;
  }
  if (xr == re) return;
  std::copy_n(xr, n_ * kLanes, re);
  std::copy_n(xi, n_ * kLanes, im);
}

template class Fft<float>;
template class Fft<double>;
template void Fft<float>::run<1>(float*, float*, float*) const;
template void Fft<float>::run<8>(float*, float*, float*) const;
template void Fft<double>::run<1>(double*, double*, double*) const;
template void Fft<double>::run<8>(double*, double*, double*) const;

}  // namespace tiercel
