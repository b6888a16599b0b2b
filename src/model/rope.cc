#include "model/rope.h"

#include <cmath>
#include <numbers>

namespace edgewise::model {
namespace {

// Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, those between blended.
double ScaleLlama3(const RopeConfig& rope, double frequency) {
  const double original = static_cast<double>(rope.original_max_positions);
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  if (wavelength > original / rope.low_freq_factor) return frequency / rope.factor;
  if (wavelength < original / rope.high_freq_factor) return frequency;
  const double smooth = (original / wavelength - rope.low_freq_factor) /
                        (rope.high_freq_factor - rope.low_freq_factor);
  return (1.0 - smooth) * frequency / rope.factor + smooth * frequency;
}

}  // namespace

std::vector<double> RopeFrequencies(const RopeConfig& rope, int64_t head_dim) {
  std::vector<double> frequencies(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    double f = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    if (rope.type == RopeType::kLinear) f /= rope.factor;
    if (rope.type == RopeType::kLlama3) f = ScaleLlama3(rope, f);
    if (!rope.divisors.empty()) f /= static_cast<double>(rope.divisors[i]);
    frequencies[i] = f;
  }
  return frequencies;
}

void RopeTables::Ensure(const ModelConfig& config, int64_t n) {
  if (n <= positions_ && tables_.size() == config.ropes.size()) return;
  tables_.clear();
  for (const RopeConfig& rope : config.ropes) {
    const std::vector<double> frequencies = RopeFrequencies(rope, config.head_dim);
    const int64_t half = config.head_dim / 2;
    RopeTable table{FloatBuffer(n * half), FloatBuffer(n * half)};
    for (int64_t p = 0; p < n; ++p) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(p) * frequencies[static_cast<size_t>(i)];
        table.cos[p * half + i] = static_cast<float>(std::cos(angle));
        table.sin[p * half + i] = static_cast<float>(std::sin(angle));
      }
    }
    tables_.push_back(std::move(table));
  }
  positions_ = n;
}

int64_t RopeTables::bytes() const {
  int64_t bytes = 0;
  for (const RopeTable& t : tables_) bytes += (t.cos.size() + t.sin.size()) * 4;
  return bytes;
}

}  // namespace edgewise::model
