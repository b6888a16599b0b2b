// Included inside the unnamed namespace of a vec_*.h user.
template <int N>
struct Constant {
  static constexpr int value = N;
  constexpr int operator()() const { return N; }
};

// fn(Constant<0>) .. fn(Constant<N - 1>), all inlined.
template <typename Fn, int... I>
EW_INLINE void UnrollSequence(Fn& fn, std::integer_sequence<int, I...>) {
  (fn(Constant<I>{}), ...);
}
template <int N, typename Fn>
EW_INLINE void Unroll(Fn fn) {
  UnrollSequence(fn, std::make_integer_sequence<int, N>{});
}

// Where the bytes of an 8-byte run go when bit i of the index says that position i is taken; 0x80
// (shuffles make it zero) elsewhere.
struct ExpandTable {
  uint8_t at[256][8];
  constexpr ExpandTable() : at() {
    for (int mask = 0; mask < 256; ++mask) {
      int next = 0;
      for (int i = 0; i < 8; ++i) {
        at[mask][i] = static_cast<uint8_t>((mask >> i) & 1 ? next : 0x80);
        next += (mask >> i) & 1;
      }
    }
  }
};
alignas(64) constexpr ExpandTable kExpand;
