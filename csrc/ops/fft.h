// The discrete Fourier transform of any length: mixed radices up to 31, and Bluestein's convolution for lengths with a larger prime factor.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

namespace tiercel {

// A plan for sequences of n complex numbers. kLanes of them are transformed at once, interleaved: element k of sequence l lies at
// [k * kLanes + l], real and imaginary parts apart. The inverse, times n, is the same with the parts exchanged.
template <class T> class Fft {
 public:
  explicit Fft(int64_t n);
  int64_t scratch() const { return padded_ ? 4 * padded_->n_ : 2 * n_; }  // elements a lane
  template <int kLanes> void run(T* re, T* im, T* scratch) const;         // in place; kLanes: 1 or 8

 private:
  template <int kLanes> void convolve(T* re, T* im, T* scratch) const;

  int64_t n_;
  std::vector<int> radices_;
  std::vector<T> cos_, sin_;        // cos and -sin of 2 pi k / n; for Bluestein of pi k^2 / n
  std::unique_ptr<Fft> padded_;     // Bluestein: of the power of two in which the convolution is done,
  std::vector<T> filter_re_, filter_im_;  // and the transform of what is convolved with, over its length
};

}  // namespace tiercel
