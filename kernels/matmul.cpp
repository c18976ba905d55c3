#include "kernels/matmul.h"

#include <cstring>

#include "kernels/cpu/matmul_simd.h"
#include "kernels/cuda/encode.h"
#include "kernels/cuda/ops.h"
#include "kernels/matmul_frag.h"

namespace quire {

namespace {

std::string describe(const MatmulProblem& p) {
  return fmt::format("x {} (M, {}) times w {} ({}, {})", to_string(p.x), p.k, to_string(p.w), p.n, p.k);
}

bool anything(const MatmulProblem&) { return true; }
bool integers_in_tiles(const MatmulProblem& p) { return cpu::integer_rule(p) && cpu::amx_works(); }
bool floats(const MatmulProblem& p) { return !cpu::integer_rule(p); }
[[maybe_unused]] bool integers_on_tensor_cores(const MatmulProblem& p) {
  return cpu::integer_rule(p) && matmul_frag_supports(p);
}
[[maybe_unused]] bool floats_on_tensor_cores(const MatmulProblem& p) { return floats(p) && matmul_frag_supports(p); }
[[maybe_unused]] bool integers_through_blas(const MatmulProblem& p) {
  return cpu::integer_rule(p) && matmul_blas_supports(p);
}
[[maybe_unused]] bool floats_through_blas(const MatmulProblem& p) { return floats(p) && matmul_blas_supports(p); }

// One entry of the list, for one instruction set.
template <const cpu::MatmulSimd& Simd>
void run_float(const Context& ctx, const Tensor& x, const PackedWeight& w, const Tensor& y, const Epilogue& epilogue) {
  cpu::matmul_float(Simd, ctx, x, w, y, epilogue);
}
template <const cpu::MatmulSimd& Simd>
void run_int(const Context& ctx, const Tensor& x, const PackedWeight& w, const Tensor& y, const Epilogue& epilogue) {
  cpu::matmul_int(Simd, ctx, x, w, y, epilogue);
}

void run_amx(const Context& ctx, const Tensor& x, const PackedWeight& w, const Tensor& y, const Epilogue& epilogue) {
  static const cpu::MatmulSimd simd = [] {
    cpu::MatmulSimd amx = cpu::kMatmulAvx512;
    amx.int_block = cpu::int_block_amx;
    return amx;
  }();
  cpu::matmul_int(simd, ctx, x, w, y, epilogue);
}

// On a GPU, canonical rows.
[[maybe_unused]] void generic_int(const Context& ctx, const Tensor& x, const PackedWeight& w, const Tensor& y,
                                  const Epilogue& epilogue) {
  if constexpr (kCuda) cuda::matmul_int(ctx, x, w.rows, y, epilogue);
}
[[maybe_unused]] void generic_float(const Context& ctx, const Tensor& x, const PackedWeight& w, const Tensor& y,
                                    const Epilogue& epilogue) {
  if constexpr (kCuda) {
    if (x.codec == id<F32>) {
      const float* rows = x.data.row<const float>(0);
      return cuda::matmul_float(ctx, rows, x.data.pitch / 4, x.rows, w.rows, y, epilogue);
    }
    float* rows = ctx.scratch->take<float>(x.rows * x.cols);
    cuda::decode_rows(ctx, x, nullptr, 0, x.rows, rows, x.cols);
    cuda::matmul_float(ctx, rows, x.cols, x.rows, w.rows, y, epilogue);
  }
}

// What makes the pair of formats meaningless to every kernel.
void check_problem(const MatmulProblem& p) {
  if (!cpu::integer_rule(p)) return;
  const int64_t gw = cpu::scale_group(p.w), gx = p.x.group;
  check(gw == 0 || gx == 0 || gw % gx == 0 || gx % gw == 0,
        "matmul: {}: groups of {} in w and {} in x; one must divide the other", describe(p), gw, gx);
  const int64_t group = gw == 0 ? gx : gx == 0 ? gw : std::min(gw, gx);
  const int64_t segment = group == 0 ? p.k : std::min(group, p.k);
  check(segment <= 65536, "matmul: {}: int32 sums hold segments of at most 65536 codes, not {}; use groups",
        describe(p), segment);
}

void check_tensor(const Tensor& t, const char* name, const Context& ctx) {
  check(t.device == ctx.device, "matmul: {} {} is not on the device of the context", name, quire::describe(t));
  check(t.order == Order::natural, "matmul: {} {} does not lie in natural order", name, quire::describe(t));
  check(t.data.ptr != nullptr || t.rows * t.cols == 0, "matmul: {} {} has no data", name, quire::describe(t));
}

// Parts one after the other as one canonical tensor.
PackedWeight concatenate(const Context& ctx, const std::vector<Tensor>& parts, const MatmulProblem& problem) {
  PackedWeight w = empty_weight(problem, nullptr, ctx.device);
  int64_t row0 = 0;
  for (const Tensor& part : parts) {
    pack_slice(ctx, part, row0, w);
    row0 += part.rows;
  }
  return w;
}

void check_operands(const Context& ctx, const Tensor& x, const PackedWeight& w, const Tensor& y) {
  const MatmulProblem& p = w.problem;
  check(ctx.pool && ctx.scratch, "matmul: the context has no {}", ctx.pool ? "scratch" : "threads");
  check_tensor(x, "x", ctx);
  check_tensor(y, "y", ctx);
  check(x.cols == p.k, "matmul: x {} does not fit w {} ({}, {}): x must have {} columns", quire::describe(x),
        to_string(p.w), p.n, p.k, p.k);
  check(y.codec == id<F32> && y.rows == x.rows && y.cols == p.n && y.data.pitch % 4 == 0,
        "matmul: y {} with a pitch of {} bytes; it must be f32 ({}, {}) on whole floats", quire::describe(y),
        y.data.pitch, x.rows, p.n);
  check(format_of(x) == p.x, "matmul: w was packed for x in {}, not {}", to_string(p.x), to_string(format_of(x)));
  if (!w.layout) {
    check(w.rows.rows == p.n && w.rows.cols == p.k && format_of(w.rows) == p.w,
          "matmul: w {} is not the packed weight's {} ({}, {})", quire::describe(w.rows), to_string(p.w), p.n, p.k);
  }
}

const MatmulKernel& find_kernel(const Context& ctx, const PackedWeight& w, int64_t rows, std::string_view name) {
  std::string known;
  for (const MatmulKernel& k : matmul_kernels()) {
    known += fmt::format("{}{}", known.empty() ? "" : " ", k.name);
    const bool fits = k.layout == w.layout && k.device == ctx.device && k.isa <= ctx.isa && k.supports(w.problem);
    if (name.empty() ? !fits || (k.prefers && !k.prefers(ctx, w.problem, rows)) : name != k.name) continue;
    check(k.device == ctx.device, "matmul: kernel {} is not of the device of the context", k.name);
    check(k.isa <= ctx.isa, "matmul: kernel {} needs {}, the context has {}", k.name, to_string(k.isa),
          to_string(ctx.isa));
    check(k.layout == w.layout, "matmul: kernel {} reads {}, w lies in {}", k.name,
          k.layout ? k.layout->name : "canonical rows", w.layout ? w.layout->name : "canonical rows");
    check(k.supports(w.problem), "matmul: kernel {} does not support {}", k.name, describe(w.problem));
    return k;
  }
  check(name.empty(), "matmul: unknown kernel '{}'; known are {}", name, known);
  fail(fmt::format("matmul: no kernel for {} in layout {} runs on {}; pack it with choose_layout for this ISA",
                   describe(w.problem), w.layout ? w.layout->name : "canonical rows", to_string(ctx.isa)));
}

}  // namespace

const std::vector<MatmulKernel>& matmul_kernels() {
  using cpu::kBytePanels, cpu::kE8Panels, cpu::kFloatPanels, cpu::kNibblePanels, cpu::kSpqrPanels;
  constexpr Isa kWide = Isa::avx512, kAvx2 = Isa::avx2;
  static const std::vector<MatmulKernel> cpu_kernels = {
      {"int_nibbles_amx", &kNibblePanels, kWide, integers_in_tiles, run_amx},
      {"int_nibbles_avx512", &kNibblePanels, kWide, cpu::integer_rule, run_int<cpu::kMatmulAvx512>},
      {"int_nibbles_avx2", &kNibblePanels, kAvx2, cpu::integer_rule, run_int<cpu::kMatmulAvx2>},
      {"int_bytes_amx", &kBytePanels, kWide, integers_in_tiles, run_amx},
      {"int_bytes_avx512", &kBytePanels, kWide, cpu::integer_rule, run_int<cpu::kMatmulAvx512>},
      {"int_bytes_avx2", &kBytePanels, kAvx2, cpu::integer_rule, run_int<cpu::kMatmulAvx2>},
      {"float_nibbles_avx512", &kNibblePanels, kWide, floats, run_float<cpu::kMatmulAvx512>},
      {"float_nibbles_avx2", &kNibblePanels, kAvx2, floats, run_float<cpu::kMatmulAvx2>},
      {"float_bytes_avx512", &kBytePanels, kWide, floats, run_float<cpu::kMatmulAvx512>},
      {"float_bytes_avx2", &kBytePanels, kAvx2, floats, run_float<cpu::kMatmulAvx2>},
      {"float_avx512", &kFloatPanels, kWide, floats, run_float<cpu::kMatmulAvx512>},
      {"float_avx2", &kFloatPanels, kAvx2, floats, run_float<cpu::kMatmulAvx2>},
      {"float_spqr_avx512", &kSpqrPanels, kWide, floats, run_float<cpu::kMatmulAvx512>},
      {"float_spqr_avx2", &kSpqrPanels, kAvx2, floats, run_float<cpu::kMatmulAvx2>},
      {"float_e8_avx512", &kE8Panels, kWide, floats, run_float<cpu::kMatmulAvx512>},
      {"float_e8_avx2", &kE8Panels, kAvx2, floats, run_float<cpu::kMatmulAvx2>},
      {"decode_avx512", nullptr, kWide, floats, run_float<cpu::kMatmulAvx512>},
      {"decode_avx2", nullptr, kAvx2, floats, run_float<cpu::kMatmulAvx2>},
      {"reference", nullptr, Isa::baseline, anything, cpu::matmul_reference},
  };
  if constexpr (kCuda) {
    static const std::vector<MatmulKernel> kernels = [] {
      std::vector<MatmulKernel> all = cpu_kernels;
      all.push_back({"blas_bytes", &kFrag8, Isa::baseline, integers_through_blas, matmul_blas, Device::cuda, true,
                     matmul_blas_is_faster});
      all.push_back({"blas_halfs", &kFrag16, Isa::baseline, floats_through_blas, matmul_blas, Device::cuda, false,
                     matmul_blas_is_faster});
      all.push_back({"mma_bytes", &kFrag8, Isa::baseline, integers_on_tensor_cores, matmul_frag, Device::cuda});
      all.push_back({"mma_e4m3", &kFrag8, Isa::baseline, floats_on_tensor_cores, matmul_frag, Device::cuda, false});
      all.push_back({"mma_halfs", &kFrag16, Isa::baseline, floats_on_tensor_cores, matmul_frag, Device::cuda, false});
      all.push_back({"generic_int", nullptr, Isa::baseline, cpu::integer_rule, generic_int, Device::cuda});
      all.push_back({"generic_float", nullptr, Isa::baseline, floats, generic_float, Device::cuda});
      return all;
    }();
    return kernels;
  }
  return cpu_kernels;
}

const WeightLayout* choose_layout(const MatmulProblem& problem, Isa isa, Device device) {
  for (const MatmulKernel& k : matmul_kernels()) {
    if (k.device == device && k.isa <= isa && k.supports(problem) && (!k.layout || k.layout->supports(problem)))
      return k.layout;
  }
  return nullptr;
}

void copy_rows(const Tensor& src, const Tensor& dst) {
  check(format_of(src) == format_of(dst) && src.cols == dst.cols && src.rows == dst.rows,
        "copy_rows: {} does not fit {}", quire::describe(src), quire::describe(dst));
  const RowBytes bytes = info(src.codec).row_bytes(src.cols, src.groups());
  for (int64_t r = 0; r < src.rows; ++r) {  // shared scale rows are repeated, so that every row has its own
    const auto copy = [&](const Plane& to, const Plane& from, int64_t size) {
      if (size > 0) std::memcpy(to.row<std::byte>(r), from.row<const std::byte>(r), size_t(size));
    };
    copy(dst.data, src.data, bytes.data);
    copy(dst.high, src.high, bytes.high);
    copy(dst.scale, src.scale, bytes.scale);
    copy(dst.aux, src.aux, bytes.aux);
  }
}

namespace {

std::string table_from_device(const Context& ctx, const Tensor& t, size_t bytes) {
  std::string table(bytes, '\0');
  if constexpr (kCuda) {
    cuda::copy_async(table.data(), t.table.ptr, bytes, ctx.stream);
    cuda::synchronize(ctx.stream);
  }
  return table;
}

// pack_slice for canonical rows on a GPU.
[[maybe_unused]] void copy_slice_on_device(const Context& ctx, const Tensor& src, int64_t row0, const PackedWeight& w) {
  const CodecInfo& codec = info(w.problem.w.codec);
  const size_t table = size_t(codec.table_bytes * (codec.table_shared ? 1 : w.problem.k));
  if (table > 0 && row0 == 0) {
    Tensor from = src, to = w.rows;
    from.rows = to.rows = 0;  // the table alone
    copy_tensor(from, to, ctx.stream);
  }
  check(table == 0 || table_from_device(ctx, src, table) == table_from_device(ctx, w.rows, table),
        "pack_weight: parts in {} have codebooks of their own; pack them apart", codec.name);
  const RowBytes bytes = codec.row_bytes(src.cols, src.groups());
  const Tensor dst = rows_of(w.rows, row0, src.rows);
  cuda::PlaneCopy planes[4];
  int count = 0;
  const auto add = [&](const Plane& from, const Plane& to, int64_t size) {
    if (size > 0) planes[count++] = {from, to, size};
  };
  add(src.data, dst.data, bytes.data);
  add(src.high, dst.high, bytes.high);
  add(src.scale, dst.scale, bytes.scale);
  add(src.aux, dst.aux, bytes.aux);
  if constexpr (kCuda) cuda::copy_rows(ctx, planes, count, nullptr, src.rows);
}

}  // namespace

PackedWeight empty_weight(const MatmulProblem& problem, const WeightLayout* layout, Device device) {
  check_problem(problem);
  check(!layout || layout->supports(problem), "pack_weight: layout {} does not support {}", layout ? layout->name : "",
        describe(problem));
  PackedWeight w;
  w.problem = problem;
  w.layout = layout;
  check(!layout || device == Device::cpu || layout->pack_on_gpu,
        "pack_weight: layout {} has no packing kernel for a GPU", layout ? layout->name : "");
  const StorageOptions options{.device = device};
  w.data = Buffer(size_t(layout ? layout->bytes(problem) : storage_bytes(problem.w, problem.n, problem.k)), device);
  w.data.use_large_pages();
  if (!layout) w.rows = place_tensor(w.data.data(), problem.w, problem.n, problem.k, options);
  return w;
}

void pack_slice(const Context& ctx, const Tensor& src, int64_t row0, PackedWeight& w) {
  check(ctx.pool, "pack_weight: the context has no threads");
  check_tensor(src, "w", ctx);
  check(format_of(src) == w.problem.w && src.cols == w.problem.k && row0 + src.rows <= w.problem.n,
        "pack_weight: {} as rows {}.. of {}", quire::describe(src), row0, describe(w.problem));
  if constexpr (kCuda) {
    if (ctx.device == Device::cuda && !w.layout) return copy_slice_on_device(ctx, src, row0, w);
    if (ctx.device == Device::cuda) return w.layout->pack_on_gpu(ctx, src, w.problem, row0, w.data.data());
  }
  if (!w.layout) {
    const CodecInfo& codec = info(w.problem.w.codec);
    const size_t table = size_t(codec.table_bytes * (codec.table_shared ? 1 : w.problem.k));
    if (table > 0 && row0 == 0) std::memcpy(w.rows.table.ptr, src.table.ptr, table);
    check(table == 0 || std::memcmp(src.table.ptr, w.rows.table.ptr, table) == 0,
          "pack_weight: parts in {} have codebooks of their own; pack them apart", codec.name);
    return copy_rows(src, rows_of(w.rows, row0, src.rows));
  }
  int64_t slice = 64;
  for (const Plane* p : {&src.data, &src.high, &src.scale, &src.aux}) {
    if (p->ptr && slice % p->rows != 0) slice = src.rows;  // a view must start where a scale does
  }
  ctx.parallel_for(src.rows, slice, [&](int64_t begin, int64_t end) {
    w.layout->pack(rows_of(src, begin, end - begin), w.problem, row0 + begin, w.data.data());
  });
}

PackedWeight pack_weight(const Context& ctx, const std::vector<Tensor>& parts, Format x, const WeightLayout* layout) {
  check(!parts.empty(), "pack_weight: no parts");
  MatmulProblem problem{format_of(parts[0]), x, 0, parts[0].cols};
  bool aligned = true;  // layouts take parts that start on a multiple of 64 rows
  for (const Tensor& part : parts) {
    check_tensor(part, "w", ctx);
    check(format_of(part) == problem.w && part.cols == problem.k,
          "pack_weight: parts {} and {} differ in format or columns; pack them apart", quire::describe(parts[0]),
          quire::describe(part));
    aligned = aligned && problem.n % 64 == 0;
    problem.n += part.rows;
  }
  if (!layout && parts.size() == 1) {
    check_problem(problem);
    PackedWeight w;
    w.problem = problem;
    w.rows = parts[0];
    return w;
  }
  if (!layout) return concatenate(ctx, parts, problem);
  PackedWeight w = empty_weight(problem, layout, ctx.device);
  if (!aligned) {
    pack_slice(ctx, concatenate(ctx, parts, problem).rows, 0, w);
    return w;
  }
  int64_t row0 = 0;
  for (const Tensor& part : parts) {
    pack_slice(ctx, part, row0, w);
    row0 += part.rows;
  }
  return w;
}

void matmul(const Context& ctx, const Tensor& x, const PackedWeight& w, const Tensor& y, const Epilogue& epilogue,
            std::string_view kernel) {
  check_operands(ctx, x, w, y);
  check_problem(w.problem);
  const MatmulKernel& chosen = find_kernel(ctx, w, x.rows, kernel);
  if (x.rows == 0 || w.problem.n == 0) return;
  const Scratch::Scope scope(*ctx.scratch);
  chosen.run(ctx, x, w, y, epilogue);
}

}  // namespace quire
